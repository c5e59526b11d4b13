"""Training on CUDA: bfloat16 compared with float32 on the CPU, and no synchronisation within a step."""

from collections.abc import Iterator

import pytest
import torch

from imgtool.training import recipes
from imgtool.training.engine.ema import EMA
from imgtool.training.engine.meters import Meter
from imgtool.training.engine.step import Step, compiled, make_batch_loss, make_optimizer, set_lr
from imgtool.training.evaluation.evaluate import evaluate
from imgtool.training.models import yolov8
from imgtool.training.models.losses import CrossEntropy
from imgtool.training.parallel.device import has_bf16
from imgtool.training.runtimes.native import Native

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
CUDA, CPU = torch.device("cuda:0"), torch.device("cpu")
RECIPE = recipes.load("n").override(epochs=1, batch=64, imgsz=64)


@pytest.fixture
def no_sync_debug_afterwards() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")


def batch(device: torch.device, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (64, 3, 64, 64), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (64,), generator=generator)
    return images.contiguous(memory_format=torch.channels_last).to(device), labels.to(device)


class Trainer:
    """A model, its optimiser and its EMA, the same on every device."""

    def __init__(self, device: torch.device) -> None:
        torch.manual_seed(0)
        self.model = yolov8.build("n", 10).to(device).to(memory_format=torch.channels_last)
        self.optimizer = make_optimizer(self.model, RECIPE, device)
        self.ema = EMA(self.model, 0.9)
        self.batch_loss = make_batch_loss(self.model, CrossEntropy(10, RECIPE.label_smoothing), device)

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        step = Step(self.batch_loss, self.model, self.optimizer, self.ema)
        loss = step([(images, labels, None)])
        assert loss is not None
        return loss


def test_a_bfloat16_step_is_close_to_float32_on_the_cpu() -> None:
    cuda, cpu = Trainer(CUDA), Trainer(CPU)
    losses = []
    for trainer, device in ((cuda, CUDA), (cpu, CPU)):
        set_lr(trainer.optimizer, 0.01)
        losses.append([trainer.step(*batch(device, seed)).item() for seed in range(3)])
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert all(p.dtype == torch.float32 for p in cuda.model.parameters())
    for (name, p), q in zip(cuda.model.state_dict().items(), cpu.model.state_dict().values(), strict=True):
        if name.endswith("conv.weight"):
            assert (p.cpu() - q).norm() < 0.05 * q.norm(), name


@pytest.mark.usefixtures("no_sync_debug_afterwards")
def test_a_step_does_not_synchronise() -> None:
    trainer, (images, labels) = Trainer(CUDA), batch(CUDA)
    trainer.step(images, labels)  # lazy initialisation may synchronise
    meter = Meter(CUDA)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    for lr in (0.1, 0.05):
        set_lr(trainer.optimizer, lr)
        meter.count(trainer.step(images, labels), len(labels))
    with pytest.raises(RuntimeError):
        meter.read(1)  # the debug mode does detect synchronisation


def test_compiled_loss_equals_the_eager_one() -> None:
    trainer, (images, labels) = Trainer(CUDA), batch(CUDA)
    messages: list[str] = []
    fast = compiled(trainer.batch_loss, CUDA, messages.append, trainer.model)
    assert fast is not trainer.batch_loss, messages
    eager = trainer.batch_loss(images, labels).item()
    assert fast(images, labels).item() == pytest.approx(eager, rel=0.01)


def test_compiled_steps_equal_eager_ones() -> None:
    """Loss, weights and running statistics after some steps."""
    eager, fast = Trainer(CUDA), Trainer(CUDA)
    messages: list[str] = []
    fast.batch_loss = compiled(fast.batch_loss, CUDA, messages.append, fast.model)
    for trainer in (eager, fast):
        set_lr(trainer.optimizer, 0.01)
    for seed in range(3):
        one, other = (trainer.step(*batch(CUDA, seed)).item() for trainer in (eager, fast))
        assert one == pytest.approx(other, rel=0.02)
    assert not messages
    for (name, p), q in zip(eager.model.state_dict().items(), fast.model.state_dict().values(), strict=True):
        if name.endswith(("conv.weight", "running_mean", "running_var", "linear.weight")):
            assert (p - q).norm() < 0.05 * q.norm() + 1e-3, name


def test_evaluation_in_bfloat16() -> None:
    assert has_bf16(CUDA) == (torch.cuda.get_device_capability() >= (8, 0))
    trainer = Trainer(CUDA)
    one = evaluate(Native(trainer.model), [batch(CUDA)], CUDA)
    other = evaluate(Native(trainer.model.cpu()), [batch(CPU)], CPU)
    assert one.loss == pytest.approx(other.loss, rel=0.02)
    assert abs(one.top5 - other.top5) <= 2 / 64


def test_random_state_and_momentum_survive_a_checkpoint() -> None:
    trainer = Trainer(CUDA)
    trainer.step(*batch(CUDA))
    twin = Trainer(CUDA)
    twin.model.load_state_dict(trainer.model.state_dict())
    twin.optimizer.load_state_dict(trainer.optimizer.state_dict())
    one, other = (p.step(*batch(CUDA, 1)).item() for p in (trainer, twin))
    assert one == pytest.approx(other, rel=1e-3)
    momenta = [p.optimizer.state[next(p.model.parameters())]["momentum_buffer"] for p in (trainer, twin)]
    assert momenta[0].device.type == "cuda"
    torch.testing.assert_close(momenta[0], momenta[1], rtol=0.05, atol=1e-3)
