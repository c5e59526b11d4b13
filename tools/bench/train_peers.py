"""The trainings of ``imgtool bench train``, each a fresh process: ours, Ultralytics', and torchvision's reference.

A training is described by a `Plan` and leaves a `Result`. What runs in the child is started as
``python -m imgtool.bench.train_peers NAME`` with the plan on its standard input.
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

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as torchvision's references use them
SUM_BATCH = 256  # torchvision's references state their learning rate for eight GPUs with 32 images each


@dataclass(frozen=True)
class Plan:
    """``files`` has train/CLASS/IMAGE and val/CLASS/IMAGE, ``data`` the same prepared, ``out`` is to be made."""

    files: str
    data: str
    out: str
    epochs: int
    batch: int
    imgsz: int
    threads: int  # of torch, and workers of the loader
    seed: int
    peer_workers: int | None = None  # Ultralytics' loader; None: as it decides itself, which on the CPU is none


def train(who: str, plan: Plan) -> dict[str, Any]:
    """One training in a process of its own: ours, ours-resnet18, ultralytics or torchvision."""
    home = Path(plan.out).parent
    variables = {
        **os.environ,
        # Ultralytics would set this to 1 where it is not set
        "OMP_NUM_THREADS": str(plan.threads),
        "CUDA_VISIBLE_DEVICES": "",
        **environment(home / "ultralytics"),
    }
    command = [sys.executable, "-m", "imgtool.bench.train_peers", who]
    if who.startswith("ours"):
        command = [sys.executable, "-m", "imgtool", *ours(plan, "resnet18" if who.endswith("resnet18") else "n")]
    started = time.perf_counter()
    done = subprocess.run(
        command, input=json.dumps(asdict(plan)), env=variables, cwd=home, capture_output=True, text=True
    )
    wall = time.perf_counter() - started
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or "it ended without a word").splitlines()
        raise click.ClickException(f"{who}: {lines[-1]}")
    curve = read_curve(Path(plan.out) / "results.csv")
    return {"who": who, "seed": plan.seed, "wall": round(wall, 2), **summary(curve), "curve": curve}


def ours(plan: Plan, network: str) -> list[str]:
    """The arguments of `imgtool` for this training, its recipe otherwise being the default."""
    return [
        "train",
        *(["--size", network] if network == "n" else ["--arch", f"torchvision:{network}"]),
        *("--data", plan.data, "--name", plan.out, "--device", "cpu"),
        *("--epochs", str(plan.epochs), "--batch", str(plan.batch), "--imgsz", str(plan.imgsz)),
        *("--workers", str(plan.threads), "--seed", str(plan.seed), "--no-plots"),
    ]


def read_curve(path: Path) -> list[dict[str, float]]:
    """An epoch a row of results.csv, in the columns that ours and Ultralytics' share; ``time`` is since the start."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = [{key.strip(): value for key, value in row.items()} for row in csv.DictReader(file)]
    names = {"epoch": "epoch", "time": "time", "top1": "metrics/accuracy_top1", "train_loss": "train/loss"}
    return [{name: float(row[column]) for name, column in names.items()} for row in rows]


def summary(curve: list[dict[str, float]]) -> dict[str, Any]:
    """Seconds are of the median epoch with its validation and checkpoint, without the first if there are others."""
    times = [0.0] + [row["time"] for row in curve]
    took = [after - before for before, after in itertools.pairwise(times)]
    return {
        "best": max(row["top1"] for row in curve),
        "last": curve[-1]["top1"],
        "epoch_seconds": round(statistics.median(took[1:] or took), 3),
    }


def ultralytics(plan: Plan) -> None:
    """As its users do it, with its own defaults; only what a CPU has no use for is off (mixed precision, plots)."""
    import torch
    from ultralytics import YOLO
    from ultralytics.models.yolo.classify import ClassificationTrainer
    from ultralytics.utils import torch_utils

    torch_utils.NUM_THREADS = plan.threads  # its select_device gives torch one less than there are cores

    class Trainer(ClassificationTrainer):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            if plan.peer_workers is not None:  # on the CPU it has just set none, whatever was asked for
                self.args.workers = plan.peer_workers

    out = Path(plan.out)
    YOLO("yolov8n-cls.yaml").train(
        trainer=Trainer,
        data=plan.files,
        epochs=plan.epochs,
        batch=plan.batch,
        imgsz=plan.imgsz,
        workers=plan.threads,
        seed=plan.seed,
        device="cpu",
        amp=False,
        plots=False,
        project=str(out.parent),
        name=out.name,
        exist_ok=True,
    )
    if (threads := torch.get_num_threads()) != plan.threads:
        raise SystemExit(f"Ultralytics trained on {threads} threads, not {plan.threads}: the comparison is not fair")


def torchvision(plan: Plan) -> None:
    """resnet18 in the manner of torchvision's references/classification/train.py, whose defaults these are: SGD of .1
    a 256 images, momentum .9, weight decay 1e-4 on everything, crops and flips through Pillow, ImageFolder and
    DataLoader, loss and accuracy read every step. Its steps of 30 epochs make no sense in so few: a cosine instead.
    """
    import torch
    from torch.utils.data import DataLoader
    from torchvision import transforms as T
    from torchvision.datasets import ImageFolder
    from torchvision.models import get_model

    torch.manual_seed(plan.seed)
    to_float = [T.PILToTensor(), T.ConvertImageDtype(torch.float), T.Normalize(MEAN, STD)]
    crop = [T.RandomResizedCrop(plan.imgsz, antialias=True), T.RandomHorizontalFlip(), *to_float]
    whole = [T.Resize(plan.imgsz, antialias=True), T.CenterCrop(plan.imgsz), *to_float]
    train_set = ImageFolder(f"{plan.files}/train", T.Compose(crop))
    val_set = ImageFolder(f"{plan.files}/val", T.Compose(whole))
    train_loader = DataLoader(train_set, plan.batch, shuffle=True, num_workers=plan.threads)
    val_loader = DataLoader(val_set, plan.batch, num_workers=plan.threads)
    model = get_model("resnet18", weights=None, num_classes=len(train_set.classes))
    criterion = torch.nn.CrossEntropyLoss()
    lr = 0.1 * plan.batch / SUM_BATCH
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=plan.epochs)
    Path(plan.out).mkdir()
    started = time.perf_counter()
    with open(Path(plan.out) / "results.csv", "w", encoding="utf-8") as file:
        print("epoch,time,train/loss,metrics/accuracy_top1", file=file)
        for epoch in range(plan.epochs):
            model.train()
            losses = []
            for images, labels in train_loader:
                logits = model(images)
                loss = criterion(logits, labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
                logits.topk(5).indices.eq(labels[:, None]).sum().item()  # its meters of top-1 and top-5
            scheduler.step()
            model.eval()
            with torch.inference_mode():
                right = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in val_loader)
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, f"{plan.out}/checkpoint.pth")
            seconds = time.perf_counter() - started
            row = (epoch + 1, f"{seconds:.3f}", f"{statistics.mean(losses):.6g}", f"{right / len(val_set):.6g}")
            print(*row, sep=",", file=file)


if __name__ == "__main__":
    {"ultralytics": ultralytics, "torchvision": torchvision}[sys.argv[1]](Plan(**json.load(sys.stdin)))
