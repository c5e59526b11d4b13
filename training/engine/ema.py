"""The exponential moving average (EMA) of a model's weights, which is validated and saved."""

import copy

import torch
from torch import Tensor, nn


class EMA:
    """θ̄_t = Σ_s d^(t−s)·θ_s / Σ_s d^(t−s) over the steps s = 1…t; the initial weights θ_0 are not part of the average.

    The update is θ̄ += (1−d)/(1−d^t)·(θ − θ̄), which includes Adam's bias correction (Kingma & Ba 2015, §3). The first
    update copies the weights, so the random initial weights do not influence a short run.

    ``module`` is the averaged model, in eval mode and without gradients. Batch norm's running statistics are averaged
    like weights; its counters are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay  # d, per step; with 0 the average is the latest weights
        self.steps = 0
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        averages = tensors(self.module)
        # collected once: on a small network, iterating over the modules takes longer than the arithmetic
        self._floats = [i for i, tensor in enumerate(averages) if tensor.is_floating_point()]
        self._counters = [i for i, tensor in enumerate(averages) if not tensor.is_floating_point()]
        self._averages = [averages[i] for i in self._floats], [averages[i] for i in self._counters]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Adds the weights after an optimiser step to the average, in a few kernels for all tensors, without
        synchronisation."""
        self.steps += 1
        weight = (1 - self.decay) / (1 - self.decay**self.steps)
        latest = tensors(model)
        floats, counters = self._averages
        torch._foreach_lerp_(floats, [latest[i] for i in self._floats], weight)
        if counters:
            torch._foreach_copy_(counters, [latest[i] for i in self._counters])


def tensors(model: nn.Module) -> list[Tensor]:
    """Returns the model's parameters and buffers."""
    return [*model.parameters(), *model.buffers()]
