"""The exponential moving average of a model's weights, which is what is validated and kept."""

import copy

import torch
from torch import Tensor, nn


class EMA:
    """θ̄_t = Σ_s d^(t−s)·θ_s / Σ_s d^(t−s) over the steps s = 1…t: an average of the steps taken and of nothing else.

    The running form is θ̄ += (1−d)/(1−d^t)·(θ − θ̄), Adam's bias correction (Kingma & Ba 2015, §3) folded into the
    step: the first update copies the weights, so a short run is not dragged towards its random start.

    ``module`` is the averaged model, in eval mode and without gradients. Batch norm's running statistics are averaged
    like weights; its counters are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay  # d, of one step; 0 keeps the latest weights
        self.steps = 0
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        averages = tensors(self.module)
        # Found once: going through the modules costs more than the arithmetic on a small network.
        self._floats = [i for i, tensor in enumerate(averages) if tensor.is_floating_point()]
        self._counters = [i for i, tensor in enumerate(averages) if not tensor.is_floating_point()]
        self._averages = [averages[i] for i in self._floats], [averages[i] for i in self._counters]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Takes the weights of one more optimiser step in: a few kernels for all tensors, no synchronisation."""
        self.steps += 1
        weight = (1 - self.decay) / (1 - self.decay**self.steps)
        latest = tensors(model)
        floats, counters = self._averages
        torch._foreach_lerp_(floats, [latest[i] for i in self._floats], weight)
        if counters:
            torch._foreach_copy_(counters, [latest[i] for i in self._counters])


def tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
