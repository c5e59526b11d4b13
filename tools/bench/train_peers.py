"""The trainings of ``imgtool bench train``, each in a new process: imgtool's, Ultralytics', torchvision's.

A `TrainingSpec` describes a training. The child process of a peer is ``python -m imgtool.bench.train_peers NAME``, with
the spec as JSON on its standard input.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from imgtool.bench.ultralytics import environment

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as in torchvision's references
REFERENCE_BATCH = 256  # torchvision's learning rate is for 8 GPUs with 32 images each


@dataclass(frozen=True)
class TrainingSpec:
    """One training.

    Attributes:
        files: a folder with train/CLASS/IMAGE and val/CLASS/IMAGE.
        data: the same images, prepared.
        out: the folder to write results.csv to; it does not exist yet.
    """

    files: str
    data: str
    out: str
    epochs: int
    batch: int
    imgsz: int
    threads: int  # of torch, and workers of the loader
    seed: int
    peer_workers: int | None = None  # of Ultralytics' loader; None: its own choice, which is 0 on a CPU


def train(who: str, spec: TrainingSpec) -> dict[str, Any]:
    """Runs one training in a new process: ours, ours-resnet18, ultralytics or torchvision."""
    home = Path(spec.out).parent
    variables = {
        **os.environ,
        # Ultralytics would set this to 1 if it were not set
        "OMP_NUM_THREADS": str(spec.threads),
        "CUDA_VISIBLE_DEVICES": "",
        **environment(home / "ultralytics"),
    }
    command = [sys.executable, "-m", "imgtool.bench.train_peers", who]
    if who.startswith("ours"):
        command = [sys.executable, "-m", "imgtool", *ours(spec, "resnet18" if who.endswith("resnet18") else "n")]
    started = time.perf_counter()
    done = subprocess.run(
        command, input=json.dumps(asdict(spec)), env=variables, cwd=home, capture_output=True, text=True
    )
    wall = time.perf_counter() - started
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or "it printed nothing").splitlines()
        raise click.ClickException(f"{who}: {lines[-1]}")
    curve = read_curve(Path(spec.out) / "results.csv")
    return {"who": who, "seed": spec.seed, "wall": round(wall, 2), **summary(curve), "curve": curve}


def ours(spec: TrainingSpec, network: str) -> list[str]:
    """Returns the arguments of `imgtool` for this training, with the default recipe."""
    return [
        "train",
        *(["--size", network] if network == "n" else ["--arch", f"torchvision:{network}"]),
        *("--data", spec.data, "--name", spec.out, "--device", "cpu"),
        *("--epochs", str(spec.epochs), "--batch", str(spec.batch), "--imgsz", str(spec.imgsz)),
        *("--workers", str(spec.threads), "--seed", str(spec.seed), "--no-plots"),
    ]


def read_curve(path: Path) -> list[dict[str, float]]:
    """Reads one row per epoch from results.csv, in the columns that all share; ``time`` is since the start."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = [{key.strip(): value for key, value in row.items()} for row in csv.DictReader(file)]
    names = {"epoch": "epoch", "time": "time", "top1": "metrics/accuracy_top1", "train_loss": "train/loss"}
    return [{name: float(row[column]) for name, column in names.items()} for row in rows]


def summary(curve: list[dict[str, float]]) -> dict[str, Any]:
    """Returns best and last top-1, and the median seconds per epoch, without the first epoch if there are others."""
    times = [0.0] + [row["time"] for row in curve]
    took = [after - before for before, after in itertools.pairwise(times)]
    return {
        "best": max(row["top1"] for row in curve),
        "last": curve[-1]["top1"],
        "epoch_seconds": round(statistics.median(took[1:] or took), 3),
    }


def ultralytics(spec: TrainingSpec) -> None:
    """Trains with Ultralytics' defaults, except that mixed precision, which a CPU does not use, and plots are off."""
    import torch
    from ultralytics import YOLO
    from ultralytics.models.yolo.classify import ClassificationTrainer
    from ultralytics.utils import torch_utils

    torch_utils.NUM_THREADS = spec.threads  # its select_device sets one less than there are cores

    class Trainer(ClassificationTrainer):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            if spec.peer_workers is not None:  # on a CPU it has just set 0, whatever was requested
                self.args.workers = spec.peer_workers

    out = Path(spec.out)
    YOLO("yolov8n-cls.yaml").train(
        trainer=Trainer,
        data=spec.files,
        epochs=spec.epochs,
        batch=spec.batch,
        imgsz=spec.imgsz,
        workers=spec.threads,
        seed=spec.seed,
        device="cpu",
        amp=False,
        plots=False,
        project=str(out.parent),
        name=out.name,
        exist_ok=True,
    )
    if (threads := torch.get_num_threads()) != spec.threads:
        raise SystemExit(f"Ultralytics trained on {threads} threads, not {spec.threads}: the comparison is not fair")


def torchvision(spec: TrainingSpec) -> None:
    """Trains resnet18 as torchvision's references/classification/train.py does by default.

    These defaults are SGD with a learning rate of .1 per 256 images, momentum .9, weight decay 1e-4 on all parameters,
    crops and flips through Pillow, ImageFolder and DataLoader, loss and accuracy computed at every step. Only the
    learning rate follows a cosine, because the reference's steps of 30 epochs do not fit a short training.
    """
    import torch
    from torch.utils.data import DataLoader
    from torchvision import transforms as T
    from torchvision.datasets import ImageFolder
    from torchvision.models import get_model

    torch.manual_seed(spec.seed)
    to_float = [T.PILToTensor(), T.ConvertImageDtype(torch.float), T.Normalize(MEAN, STD)]
    crop = [T.RandomResizedCrop(spec.imgsz, antialias=True), T.RandomHorizontalFlip(), *to_float]
    whole = [T.Resize(spec.imgsz, antialias=True), T.CenterCrop(spec.imgsz), *to_float]
    train_set = ImageFolder(f"{spec.files}/train", T.Compose(crop))
    val_set = ImageFolder(f"{spec.files}/val", T.Compose(whole))
    train_loader = DataLoader(train_set, spec.batch, shuffle=True, num_workers=spec.threads)
    val_loader = DataLoader(val_set, spec.batch, num_workers=spec.threads)
    model = get_model("resnet18", weights=None, num_classes=len(train_set.classes))
    criterion = torch.nn.CrossEntropyLoss()
    lr = 0.1 * spec.batch / REFERENCE_BATCH
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=spec.epochs)
    Path(spec.out).mkdir()
    started = time.perf_counter()
    with open(Path(spec.out) / "results.csv", "w", encoding="utf-8") as file:
        print("epoch,time,train/loss,metrics/accuracy_top1", file=file)
        for epoch in range(spec.epochs):
            model.train()
            losses = []
            for images, labels in train_loader:
                logits = model(images)
                loss = criterion(logits, labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
                logits.topk(5).indices.eq(labels[:, None]).sum().item()  # the reference's meters of top-1 and top-5
            scheduler.step()
            model.eval()
            with torch.inference_mode():
                right = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in val_loader)
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, f"{spec.out}/checkpoint.pth")
            seconds = time.perf_counter() - started
            row = (epoch + 1, f"{seconds:.3f}", f"{statistics.mean(losses):.6g}", f"{right / len(val_set):.6g}")
            print(*row, sep=",", file=file)


if __name__ == "__main__":
    {"ultralytics": ultralytics, "torchvision": torchvision}[sys.argv[1]](TrainingSpec(**json.load(sys.stdin)))
