"""`Classifier`: train, validate and predict, from Python as from the command line."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from imgtool.pipelines.codec.transform import ValTransform
from imgtool.training import job
from imgtool.training.evaluation import predict, validation
from imgtool.training.evaluation.error_analysis import ErrorAnalysis
from imgtool.training.evaluation.evaluate import Metrics, evaluate
from imgtool.training.evaluation.per_class import PerClass, write_csv
from imgtool.training.evaluation.predict import Prediction, Source
from imgtool.training.evaluation.splits import DATA
from imgtool.training.execute import execute
from imgtool.training.export.write import Exported, export
from imgtool.training.models.losses import Loss
from imgtool.training.parallel import distributed
from imgtool.training.parallel.device import resolve_device
from imgtool.training.recipes import Recipe
from imgtool.training.runs import plots as run_plots
from imgtool.training.runs.run import Run
from imgtool.training.runtimes.trained import open_model, runner
from imgtool.wordnet.errors import ImageError, InputError
from imgtool.wordnet.graph.label_map import LabelMap


@dataclass(frozen=True)
class TrainResults:
    """What a training left behind."""

    run: Path  # the run directory
    metrics: Metrics  # of the best epoch, which weights/best.pt holds
    epochs: int

    def to_dict(self) -> dict[str, Any]:
        return {"run": str(self.run), "epochs": self.epochs, **self.metrics.to_dict()}


class Classifier:
    """A YOLOv8-cls-shaped classifier.

    ``Classifier("n")`` is a new, untrained one of the sizes n, s, m, l, x; ``Classifier("timm:resnet50")`` or
    ``Classifier("torchvision:resnet18")`` another library's network; ``Classifier("runs/train")`` or
    ``Classifier("runs/train/weights/best.pt")`` is a trained one, ``Classifier("yolov8n-cls.pt")`` one of Ultralytics'
    (imgtool.training.checkpoints.ultralytics), ``Classifier("best.onnx")`` an exported one (imgtool.training.runtimes),
    which cannot be trained. ``device`` is the default for predict and val, ``threads`` the number of CPU threads to
    compute with, in the whole process. ``trained`` is the network and all that is known of it.

    Raises InputError for an unknown size, CheckpointError for a file that is damaged or not a checkpoint.
    """

    def __init__(
        self, size_or_checkpoint: str | Path = "n", device: str | None = None, threads: int | None = None
    ) -> None:
        self.device = device
        self.trained = open_model(size_or_checkpoint, device, threads)

    @property
    def model(self) -> nn.Module:
        """The torch module."""
        return self.trained.network

    @property
    def wnids(self) -> list[str]:
        """Of the classes, in the order of the logits; empty while none are known."""
        return self.trained.wnids

    @property
    def names(self) -> list[str]:
        return self.trained.names

    @property
    def size(self) -> str:
        return self.trained.size

    @property
    def imgsz(self) -> int:
        """Pixels per side at validation."""
        return self.trained.imgsz

    @property
    def loss(self) -> str:
        return self.trained.loss

    @property
    def criterion(self) -> Loss:
        return self.trained.criterion

    @property
    def metrics(self) -> dict[str, Any] | None:
        """Of the checkpoint's epoch."""
        return self.trained.metrics

    @property
    def checkpoint(self) -> Path | None:
        """Where the weights came from; None while they are random."""
        return self.trained.path

    def train(
        self,
        data: str | Path | None = None,
        *,
        name: str | Path | None = None,
        resume: bool = False,
        recipe: str | Path | Recipe | None = None,
        seed: int | None = None,
        labelmap: str | Path | LabelMap | None = None,
        on_epoch: Callable[[int, Metrics], None] | None = None,
        **options: Any,
    ) -> TrainResults:
        """Trains on a prepared data set and becomes the best epoch's model.

        ``data`` defaults to data/imagenet. ``recipe`` is a size, a TOML file or a `Recipe` and defaults to the size's.
        ``options`` are settings of the recipe that replace its own (``epochs=20, batch=256, imgsz=160, lr=0.3``; see
        imgtool.training.recipes.Recipe) and fields of imgtool.training.job.Execution (``device="cuda:1", workers=8,
        precision="fp16", logger="tensorboard", quiet=True``). Without ``batch`` a small data set gets a smaller one
        than the recipe's. ``seed`` (0) decides initial weights, order and crops. ``labelmap`` gathers the data set's
        classes into other targets; ``loss`` is ce, soft, hxe or wordtree. ``name`` is a run under runs/, or a path.

        ``resume`` continues the run ``name`` (or the one this classifier was loaded from, or the latest) after the
        last step that it saved, with that run's size, recipe, seed and data; ``data`` may give the data set's new path.
        A trained classifier starts from its weights; its last layer is initialised again if the classes differ.

        Under torchrun each process calls this and does its part of every batch, on its own GPU; a training that
        torchrun restarts after a process died is resumed. ``on_epoch(epochs done, metrics)`` is called after every
        epoch. SIGINT and SIGTERM raise KeyboardInterrupt once the step is done and saved.

        Raises InputError, DatasetError or CheckpointError for what is wrong with the arguments, TrainingError when
        training diverges.
        """
        if self.trained.is_exported:
            raise InputError(f"{self.checkpoint} is an exported model: train from the checkpoint that it was made from")
        execution, overrides = job.Execution.split(options)
        with distributed.joined(resolve_device(execution.device).type) as world:
            if restarted := job.restarted(name, world):
                recipe, seed, overrides = None, None, {}  # the run has them
            if resume or restarted:
                source = name if name is not None else self.checkpoint
                run = Run.reopen(source, execution.quiet, mute=not world.is_main)
                todo = job.resumed(run, data, recipe, seed, overrides)
                if todo.finished is not None:
                    run.say(f"{run.path} is finished: all its {todo.recipe.epochs} epochs are done")
                    self.trained = open_model(run.best)
                    return TrainResults(run.path, todo.finished, todo.recipe.epochs)
            else:
                todo = job.new(self.trained, data, recipe, _labelmap(labelmap), seed, overrides, execution)
            run, best = execute(todo, name, execution, world, on_epoch)
            self.trained = open_model(run.best)
        if world.is_main:
            if execution.plots:
                measure = partial(
                    self.val,
                    todo.dataset.path,
                    labelmap=todo.dataset.labelmap,
                    device=str(execution.resolve_device(world)),
                    workers=execution.workers,
                    backend=execution.backend,
                    plots=run.path,
                )
                run_plots.draw_plots(run, todo.recipe.epochs, measure)
            if run.logger is not None:
                run.logger.close()
        return TrainResults(run.path, best, todo.recipe.epochs)

    def val(
        self,
        data: str | Path | None = None,
        *,
        batch: int | None = None,
        imgsz: int | None = None,
        device: str | None = None,
        workers: int | None = None,
        split: str = "val",
        labelmap: str | Path | LabelMap | None = None,
        real: str | Path | None = None,
        backend: str = "auto",
        all_classes: bool = False,
        per_class: str | Path | None = None,
        plots: str | Path | None = None,
    ) -> Metrics:
        """Top-1, top-5, loss and, where the classes are WordNet's, the hierarchical metrics on a split of a data set,
        at the checkpoint's image size if not told.

        ``data`` is a prepared data set, or a raw one as `prepare` takes it: a folder of class folders (ImageNet-A, -R,
        -V2) or a tar of it. Classes are matched by wnid; folders called 0, 1, … are class indices. A data set of some
        of the checkpoint's classes is judged among these alone, unless ``all_classes``. A ``labelmap`` gathers a
        prepared data set's classes, and the model's probabilities too unless it was trained on the targets. ``real``
        is the path of real.json, for ReaL accuracy, ``per_class`` that of a CSV file to write, a line a class,
        ``plots`` a folder for what imgtool.training.evaluation.error_analysis draws. Raises CheckpointError when this
        classifier has no trained weights or does not know one of the data set's classes; InputError for a label map or
        ReaL labels that do not fit, ImageError for an image that cannot be decoded.
        """
        self.trained.require_weights()
        model, place = self._runner(device)
        where, gather = data if data is not None else DATA, _labelmap(labelmap)
        transform = ValTransform(imgsz or self.imgsz)
        rows = None if per_class is None else PerClass()
        errors = None if plots is None else ErrorAnalysis()
        if per_class is not None:
            write_csv(per_class, [])  # what cannot be written is told before the work, not after
        opened = validation.open_split(
            self.trained, where, split, gather, transform, batch, place, workers, backend, all_classes, real
        )
        with opened as (plan, batches):
            observers = [observer for observer in (plan.observer, rows, errors) if observer is not None]
            metrics = evaluate(model, batches, place, plan.matched, plan.class_scores, observers)
        if plan.evaluation is not None:
            metrics = replace(metrics, hierarchy=plan.evaluation.result())
        if per_class is not None and rows is not None:
            write_csv(per_class, rows.results(plan.wnids, plan.names, plan.shown))
        if plots is not None and errors is not None:
            errors.save(plots, plan, {"split": split} | metrics.to_dict())
        return metrics

    def predict(
        self,
        source: Source,
        topk: int = 5,
        imgsz: int | None = None,
        device: str | None = None,
        on_error: Callable[[ImageError], None] | None = None,
    ) -> list[Prediction]:
        """The ``topk`` most probable classes of each image of the source, or of a list of sources:

        a path, a folder, a pattern ("images/**/*.jpg"), a URL of any fsspec kind (of these too), the bytes of an
        image's file, a PIL image, a uint8 array [H, W, 3], a uint8 tensor [3, H, W], all RGB.

        Raises CheckpointError when this classifier has no trained weights, ImageError naming the file that cannot be
        decoded (or passes over it and calls ``on_error``), InputError for what is not there or not an image.
        """
        return list(self.predict_each(source, topk, imgsz, device, on_error=on_error))

    def predict_each(
        self,
        source: Source,
        topk: int = 5,
        imgsz: int | None = None,
        device: str | None = None,
        *,
        batch: int | None = None,
        workers: int | None = None,
        on_error: Callable[[ImageError], None] | None = None,
    ) -> Iterator[Prediction]:
        """`predict`, one at a time, so that memory does not grow with the number of images; an iterator of sources
        is taken too. ``batch`` (64) images are computed at a time, while ``workers`` threads decode the next."""
        self.trained.require_weights()
        model, place = self._runner(device)
        return predict.predict(
            model,
            source,
            wnids=self.wnids,
            names=self.names,
            topk=topk,
            transform=ValTransform(imgsz or self.imgsz),
            device=place,
            batch=batch or predict.BATCH,
            workers=workers,
            on_error=on_error,
        )

    def export(self, format: str = "onnx", out: str | Path | None = None, **options: Any) -> Exported:
        """Writes the model for other programs: onnx, openvino, tensorrt, torch-export, torchscript, or the weights for
        Ultralytics. See `imgtool.training.export.write.export` for ``options`` and what is raised."""
        return export(self.trained, format, out, **options)

    def _runner(self, device: str | None) -> tuple[nn.Module, torch.device]:
        """What computes, and where: an exported model stays where it was opened."""
        if self.trained.is_exported and device not in (None, self.device):
            raise InputError(f"{self.checkpoint} is opened on {self.device or 'auto'} already, not on {device}")
        return runner(self.trained, device or self.device)


def _labelmap(labelmap: str | Path | LabelMap | None) -> LabelMap | None:
    return labelmap if labelmap is None or isinstance(labelmap, LabelMap) else LabelMap.load(labelmap)
