"""`Classifier`: train, validate, predict and export, from Python as from the command line."""

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
from imgtool.training.evaluation.splits import DATA, VAL_BATCH
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
    """The result of a training."""

    run: Path  # the run directory
    metrics: Metrics  # of the best epoch, whose weights are in weights/best.pt
    epochs: int

    def to_dict(self) -> dict[str, Any]:
        return {"run": str(self.run), "epochs": self.epochs, **self.metrics.to_dict()}


class Classifier:
    """A YOLOv8-cls-shaped classifier.

    ``Classifier("n")`` is new and untrained; the sizes are n, s, m, l and x. ``Classifier("timm:resnet50")`` and
    ``Classifier("torchvision:resnet18")`` are untrained networks of other libraries. ``Classifier("runs/train")`` and
    ``Classifier("runs/train/weights/best.pt")`` are trained, ``Classifier("yolov8n-cls.pt")`` is Ultralytics'
    (imgtool.training.checkpoints.ultralytics). ``Classifier("best.onnx")`` is an exported model
    (imgtool.training.runtimes), which cannot be trained.

    ``device`` is the default for predict and val. ``threads`` sets the number of CPU threads of the whole process.
    ``trained`` is the network with its classes and settings.

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
        """The classes' wnids, in the order of the logits; empty for an untrained network."""
        return self.trained.wnids

    @property
    def names(self) -> list[str]:
        """The classes' names, in the order of the logits; empty for an untrained network."""
        return self.trained.names

    @property
    def size(self) -> str:
        """n, s, m, l or x; timm:NAME or torchvision:NAME for a network of these libraries."""
        return self.trained.size

    @property
    def imgsz(self) -> int:
        """Pixels per side at validation."""
        return self.trained.imgsz

    @property
    def loss(self) -> str:
        """The loss that it was trained with, as in a recipe."""
        return self.trained.loss

    @property
    def criterion(self) -> Loss:
        """The loss as a module."""
        return self.trained.criterion

    @property
    def metrics(self) -> dict[str, Any] | None:
        """The validation metrics of the checkpoint's epoch."""
        return self.trained.metrics

    @property
    def checkpoint(self) -> Path | None:
        """The path that the weights were read from; None if they are random."""
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
        val_split: str | None = None,
        on_epoch: Callable[[int, Metrics], None] | None = None,
        **options: Any,
    ) -> TrainResults:
        """Trains on a prepared data set; this classifier then has the weights of the best epoch.

        ``data`` defaults to data/imagenet. ``recipe`` is a size, a TOML file or a `Recipe`, and defaults to the size's.
        ``options`` are settings that replace the recipe's (``epochs=20, batch=256, imgsz=160, lr=0.3``; see
        imgtool.training.recipes.Recipe) and fields of imgtool.training.job.Execution (``device="cuda:1", workers=8,
        precision="fp16", logger="tensorboard", quiet=True``). Without ``batch``, a small data set gets a smaller batch
        than the recipe's. ``seed`` (default 0) determines initial weights, sample order and crops. ``labelmap`` maps
        the data set's classes to the targets of another task. ``val_split`` (default "val") is the split that is
        measured after each epoch, for a data set without val. ``name`` is the name of a run under runs/, or a path.

        ``resume`` continues a run after the last step that it saved: the run ``name``, or the one that this classifier
        was loaded from, or the latest. It uses that run's size, recipe, seed and data; ``data`` is needed only if the
        data set has moved. A new training of a trained classifier starts from its weights; its last layer is
        initialised again if the classes differ.

        Under torchrun each process calls this method and trains on its share of every batch, on its own GPU. If
        torchrun restarts the training after a process died, it is resumed. ``on_epoch(epochs done, metrics)`` is called
        after each epoch. SIGINT and SIGTERM raise KeyboardInterrupt once the current step is done and saved.

        Raises InputError, DatasetError or CheckpointError for wrong arguments, TrainingError for a NaN or infinite
        loss.
        """
        if self.trained.is_exported:
            raise InputError(f"{self.checkpoint} is an exported model, which cannot be trained: use its checkpoint")
        execution, overrides = job.Execution.split(options)
        with distributed.joined(resolve_device(execution.device).type) as world:
            if restarted := job.restarted(name, world):
                recipe, seed, overrides, val_split = None, None, {}, None  # the run has them
            if resume or restarted:
                source = name if name is not None else self.checkpoint
                run = Run.reopen(source, execution.quiet, mute=not world.is_main)
                training = job.resumed(run, data, recipe, seed, overrides, execution, _labelmap(labelmap), val_split)
                if training.finished is not None:
                    run.say(f"nothing to resume: {run.path} has finished its {training.recipe.epochs} epochs")
                    self.trained = open_model(run.best)
                    return TrainResults(run.path, training.finished, training.recipe.epochs)
            else:
                training = job.new(
                    self.trained, data, recipe, _labelmap(labelmap), seed, overrides, execution, val_split
                )
            run, best = execute(training, name, execution, world, on_epoch)
            self.trained = open_model(run.best)
        if world.is_main:
            if execution.plots:
                measure = partial(
                    self.val,
                    training.dataset.path,
                    split=training.val_split,
                    labelmap=training.dataset.label_map,
                    device=str(execution.resolve_device(world)),
                    workers=execution.workers,
                    backend=execution.backend,
                    plots=run.path,
                )
                run_plots.draw_plots(run, training.recipe.epochs, measure)
            if run.logger is not None:
                run.logger.close()
        return TrainResults(run.path, best, training.recipe.epochs)

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
        """Returns top-1, top-5 and loss on a split of a data set, and hierarchical metrics if its classes are
        WordNet's.

        ``data`` is a prepared data set, or a raw one that `prepare` accepts: a folder of class folders (ImageNet-A, -R,
        -V2) or a tar of it. Classes are matched by wnid; folders named 0, 1, … are class indices. ``imgsz`` defaults to
        the checkpoint's. If the data set has only some of the checkpoint's classes, only these are candidates, unless
        ``all_classes``. A ``labelmap`` maps a prepared data set's classes to targets, and the model's probabilities
        too, unless the model was trained on the targets. ``real`` is the path of real.json, for ReaL accuracy.
        ``per_class`` is the path of a CSV file to write, with one row per class. ``plots`` is a folder for the files of
        imgtool.training.evaluation.error_analysis.

        Raises CheckpointError if this classifier has no trained weights or lacks one of the data set's classes,
        InputError for a label map or ReaL labels that do not fit, ImageError for an image that cannot be decoded.
        """
        self.trained.require_weights()
        model, resolved = self._runner(device)
        settings = validation.ValidationSettings(
            data=data if data is not None else DATA,
            split=split,
            transform=ValTransform(imgsz or self.imgsz),
            device=resolved,
            batch=batch or VAL_BATCH,
            workers=workers,
            backend=backend,
            label_map=_labelmap(labelmap),
            all_classes=all_classes,
            real=real,
        )
        rows = None if per_class is None else PerClass()
        errors = None if plots is None else ErrorAnalysis()
        if per_class is not None:
            write_csv(per_class, [])  # reports a file that cannot be written before the work, not after it
        with validation.open_split(self.trained, settings) as (setup, batches):
            observers = [observer for observer in (setup.observer, rows, errors) if observer is not None]
            metrics = evaluate(model, batches, resolved, setup.matched, setup.class_scores, observers)
        if setup.hierarchical is not None:
            metrics = replace(metrics, hierarchy=setup.hierarchical.result())
        if per_class is not None and rows is not None:
            write_csv(per_class, rows.results(setup.wnids, setup.names, setup.present))
        if plots is not None and errors is not None:
            errors.save(plots, setup, {"split": split} | metrics.to_dict())
        return metrics

    def predict(
        self,
        source: Source,
        topk: int = 5,
        imgsz: int | None = None,
        device: str | None = None,
        on_error: Callable[[ImageError], None] | None = None,
    ) -> list[Prediction]:
        """Returns the ``topk`` most probable classes of each image.

        ``source`` is one of these, or a list of them: the path or fsspec URL of a file, of a folder or of a pattern
        ("images/**/*.jpg"); the bytes of an image file; a PIL image; a uint8 array [H, W, 3] or a uint8 tensor
        [3, H, W], both RGB.

        Raises CheckpointError if this classifier has no trained weights, InputError for a source that does not exist or
        is not an image, ImageError naming the file that cannot be decoded. With ``on_error``, such a file is skipped
        and the error is passed to that function instead.
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
        """Yields the predictions of `predict` one by one, so that memory does not grow with the number of images.

        ``source`` may also be an iterator of sources. The model computes ``batch`` images at a time (default 64), while
        ``workers`` threads decode the next ones.
        """
        self.trained.require_weights()
        model, resolved = self._runner(device)
        return predict.predict(
            model,
            source,
            wnids=self.wnids,
            names=self.names,
            topk=topk,
            transform=ValTransform(imgsz or self.imgsz),
            device=resolved,
            batch=batch or predict.BATCH,
            workers=workers,
            on_error=on_error,
        )

    def export(self, format: str = "onnx", out: str | Path | None = None, **options: Any) -> Exported:
        """Writes the model in a format for other programs: onnx, openvino, tensorrt, torch-export, torchscript, or
        ultralytics-state. See `imgtool.training.export.write.export` for ``options`` and errors."""
        return export(self.trained, format, out, **options)

    def _runner(self, device: str | None) -> tuple[nn.Module, torch.device]:
        """Returns the module that maps uint8 images to logits, and its device. An exported model cannot change its
        device."""
        if self.trained.is_exported and device not in (None, self.device):
            opened_on = self.device or "auto"
            raise InputError(
                f"{self.checkpoint} is open on device {opened_on}: give device={device} to Classifier instead"
            )
        return runner(self.trained, device or self.device)


def _labelmap(labelmap: str | Path | LabelMap | None) -> LabelMap | None:
    return labelmap if labelmap is None or isinstance(labelmap, LabelMap) else LabelMap.load(labelmap)
