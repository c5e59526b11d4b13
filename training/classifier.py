"""`Classifier`: train, validate and predict, from Python as from the command line."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.transform import ValTransform
from imgtool.training import job
from imgtool.training.checkpoints import checkpoint, ultralytics
from imgtool.training.engine import loop
from imgtool.training.evaluation import error_analysis, predict, validation
from imgtool.training.evaluation.evaluate import Metrics, evaluate
from imgtool.training.evaluation.per_class import PerClass, write_csv
from imgtool.training.evaluation.plots.mosaic import BatchMosaics
from imgtool.training.evaluation.predict import Prediction, Source
from imgtool.training.export import formats
from imgtool.training.export.write import Exported, export
from imgtool.training.models import losses, registry, yolov8
from imgtool.training.parallel import distributed
from imgtool.training.parallel.device import resolve_device
from imgtool.training.recipes import Recipe
from imgtool.training.runs import loggers
from imgtool.training.runs.run import Run
from imgtool.training.runtimes.runtime import Runtime
from imgtool.wordnet.errors import CheckpointError, ImageError, InputError
from imgtool.wordnet.relabel import LabelMap


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
    (imgtool.training.checkpoints.ultralytics), ``Classifier("best.onnx")`` an exported one (imgtool.training.export),
    which cannot be trained. ``device`` is where to predict and validate if these are not told, ``threads`` how many of
    a CPU compute, in the whole process. ``model`` is the torch module, ``wnids`` and ``names`` are its classes in the
    order of its logits (empty while it knows none).

    Raises InputError for an unknown size, CheckpointError for a file that is not a whole checkpoint.
    """

    model: nn.Module
    wnids: list[str]
    names: list[str]
    criterion: losses.Loss

    def __init__(
        self, size_or_checkpoint: str | Path = "n", device: str | None = None, threads: int | None = None
    ) -> None:
        self.device = device
        self.checkpoint: Path | None = None  # where the weights came from
        self.metrics: dict[str, Any] | None = None  # of the checkpoint's epoch
        if str(size_or_checkpoint) in yolov8.SCALES or registry.is_arch(str(size_or_checkpoint)):
            self.size = str(size_or_checkpoint)
            self.model, self.wnids, self.names = registry.build(self.size), [], []
            self.loss = "ce"
            self.imgsz = 224
        else:
            if not Path(size_or_checkpoint).exists():
                sizes = ", ".join(yolov8.SCALES)
                raise CheckpointError(f"{size_or_checkpoint} is neither a size ({sizes}) nor a checkpoint or run here")
            path = checkpoint.find(size_or_checkpoint)
            if formats.recognises(path):
                self._bind(path, formats.read(path, device, threads))
            else:
                self._load(path)

    def _bind(self, path: Path, runtime: Runtime) -> None:
        """Becomes an exported model."""
        about = runtime.about
        self.model, self.wnids, self.names = runtime, about.wnids, about.names
        self.size, self.imgsz, self.metrics, self.checkpoint = about.size, runtime.imgsz, about.metrics, path
        self.loss, self.criterion = "ce", losses.from_spec("ce", self.wnids)  # its outputs are of classes already

    def _load(self, path: Path) -> None:
        self._take(path, ultralytics.load(path) if ultralytics.recognises(path) else checkpoint.load(path))

    def _take(self, path: Path, content: dict[str, Any]) -> None:
        self.loss = content["recipe"].get("loss", "ce")
        self.criterion = losses.from_spec(self.loss, content["wnids"])
        drop_path = content["recipe"].get("drop_path", 0.0)
        model = registry.build(content["size"], self.criterion.outputs, content["dropout"], drop_path)
        try:
            model.load_state_dict(content["ema"])
        except RuntimeError:
            raise CheckpointError(f"{path}: its weights do not fit a {content['size']}") from None
        self.model, self.wnids, self.names = model.eval(), content["wnids"], content["names"]
        self.size, self.imgsz, self.metrics = content["size"], content["imgsz"], content["metrics"]
        self.checkpoint = path if content["epoch"] > 0 else None

    def train(
        self,
        data: str | Path | None = None,
        *,
        epochs: int | None = None,
        batch: int | None = None,
        imgsz: int | None = None,
        device: str | None = None,
        workers: int | None = None,
        seed: int | None = None,
        name: str | Path | None = None,
        resume: bool = False,
        recipe: str | Path | Recipe | None = None,
        labelmap: str | Path | LabelMap | None = None,
        backend: str = "auto",
        order: str = "random",
        on_error: str = "raise",
        precision: str = "auto",
        compile: bool = True,
        sync_bn: bool = False,
        on_nan: str = "stop",
        save_steps: int = 0,
        keep: int = 2,
        profile: bool = False,
        logger: loggers.Loggers = None,
        plots: bool = True,
        quiet: bool = False,
        on_epoch: Callable[[int, Metrics], None] | None = None,
        **overrides: Any,
    ) -> TrainResults:
        """Trains on a prepared data set and becomes the best epoch's model.

        ``data`` defaults to data/imagenet. ``recipe`` is a size, a TOML file or a `Recipe` and defaults to the size's;
        ``epochs``, ``batch``, ``imgsz`` and further keywords (``lr=0.3``) override its settings. Without ``batch`` a
        small data set gets a smaller one than the recipe's. ``seed`` (0) decides initial weights, order and crops.
        ``labelmap`` gathers the data set's classes into other targets; ``loss`` is ce, soft, hxe or wordtree.
        ``device`` is auto, cpu, cuda, cuda:1 or 1. ``name`` is a run under runs/, or a path. ``backend``, ``order`` and
        ``on_error`` are the loader's (imgtool.pipelines.loaders.open_loader). ``logger`` is tensorboard, wandb, a
        `Logger`, or a list of these. ``plots`` draws what imgtool.training.evaluation.error_analysis does, behind the
        last epoch. ``precision``, ``compile``, ``on_nan``, ``save_steps``, ``keep`` and ``profile`` are those of
        imgtool.training.engine.loop.Options; ``sync_bn`` takes batch norm over the batches of all processes.

        ``resume`` continues the run ``name`` (or the one this classifier was loaded from, or the latest) behind the
        last step that it saved, with that run's size, recipe, seed and data; ``data`` may say where the data lies now.
        A trained classifier starts from its weights; its last layer starts anew if the classes differ.

        Under torchrun each process calls this and does its part of every batch, on a GPU of its own; a training that
        torchrun starts anew after a process died is resumed. ``on_epoch(epochs done, metrics)`` is called after every
        epoch. SIGINT and SIGTERM raise KeyboardInterrupt once the step is done and saved.

        Raises InputError, DatasetError or CheckpointError for what is wrong with the arguments, TrainingError when
        training diverges.
        """
        if isinstance(self.model, Runtime):
            raise InputError(f"{self.checkpoint} is an exported model: train from the checkpoint that it was made from")
        where = resolve_device(device)
        logging = loggers.as_list(logger)
        overrides |= {"epochs": epochs, "batch": batch, "imgsz": imgsz}
        with distributed.joined(where.type) as world:
            if world.size > 1 and where.type == "cuda":
                where = torch.device("cuda", world.local_rank)
            again = job.restarted(name, world)
            if resume or again:
                run = Run.reopen(name if name is not None else self.checkpoint, quiet, mute=not world.is_main)
                changes = (None, None, {}) if again else (recipe, seed, overrides)
                begin = job.resumed(run, data, *changes)
                assert begin.saved is not None
                self._take(run.last, begin.saved)
                if begin.is_finished:
                    run.say(f"{run.path} is finished: all its {begin.recipe.epochs} epochs are done")
                    self._load(run.best)
                    return TrainResults(run.path, Metrics(**begin.saved["resume"]["best"]), begin.recipe.epochs)
            else:
                begin = job.fresh(self.size, data, recipe, _labelmap(labelmap), seed, overrides)
                begin.precision, begin.sync_bn = precision, sync_bn
            plan, dataset = begin.recipe, begin.dataset
            criterion = losses.from_spec(plan.loss, dataset.wnids, plan.label_smoothing)
            with job.open_loaders(begin, world, where, workers, backend, order, on_error) as loaders:
                if begin.run is None:
                    created = Run.create(name, quiet) if world.is_main else None
                    path = world.first(created.path if created else None)
                    run = created or Run(path, quiet, mute=True)
                    for note in begin.notes:
                        run.say(note)
                    torch.manual_seed(begin.seed)
                    self._begin(dataset, plan, criterion.outputs, run)
                    torch.manual_seed(begin.seed + world.rank)  # each process drops out its own
                    run.write_settings(
                        job.settings(self.size, self.checkpoint, begin, where, world, backend=backend, workers=workers)
                    )
                else:
                    assert begin.saved is not None
                    run = begin.run
                    run.forget_results_after(begin.saved["epoch"])
                    part = begin.saved["resume"]["meters"][0]
                    steps = f" and {part['steps']} steps" if part else ""
                    run.say(f"resuming after epoch {begin.saved['epoch']}{steps} of {plan.epochs}")
                if world.is_main:
                    run.logger = loggers.open_loggers(logging, run, run.read_settings())
                if begin.sync_bn:
                    self.model = distributed.synced(self.model, where.type)
                run.say(
                    f"{self.size}: {yolov8.count_parameters(self.model):,} parameters, {dataset.num_classes} classes, "
                    f"{dataset.num_samples('train'):,} + {dataset.num_samples('val'):,} images, {plan.epochs} epochs, "
                    f"{begin.batch_note(world)}, on {where}, in {run.path}"
                )
                options = loop.Options(
                    begin.seed,
                    begin.precision,
                    compile,
                    on_nan,
                    save_steps,
                    keep,
                    profile,
                    on_epoch=on_epoch,
                    on_batch=BatchMosaics(run.path, dataset.names, run.say) if plots and world.is_main else None,
                    world=world,
                )
                classes = loop.Classes(dataset.wnids, dataset.names)
                try:
                    best = loop.train(
                        self.model, plan, classes, *loaders, run, where, criterion, options, begin.saved, self.size
                    )
                except KeyboardInterrupt:
                    run.say(f"stopped: --resume goes on behind the last step that {run.last} holds")
                    raise
            if loaders[0].skipped:
                run.say(f"{loaders[0].skipped} damaged samples were left out of batches")
            run.say(f"done: top-1 {best.top1:.2%}, top-5 {best.top5:.2%}; the best weights are {run.best}")
            world.any(False)  # the first process may still be writing them
            self._load(run.best)
        if world.is_main:
            if plots:
                measure = partial(self.val, dataset.path, labelmap=dataset.labelmap, device=str(where), plots=run.path)
                error_analysis.after_training(run, plan.epochs, partial(measure, backend=backend, workers=workers))
            if run.logger is not None:
                run.logger.close()
        return TrainResults(run.path, best, plan.epochs)

    def _begin(self, dataset: Dataset, plan: Recipe, outputs: int, run: Run) -> None:
        """A model for the data set's classes: new, or with the weights of the checkpoint that was loaded."""
        model = registry.build(self.size, outputs, plan.dropout, plan.drop_path)
        if self.checkpoint is not None:
            weights = self.model.state_dict()
            if self.wnids != dataset.wnids or self.criterion.outputs != outputs:
                run.say(f"the classes of {self.checkpoint} are not those of {dataset.path}: the last layer starts anew")
                head = registry.head(model) + "."
                weights = {key: value for key, value in weights.items() if not key.startswith(head)}
            model.load_state_dict(weights, strict=False)
        self.model, self.wnids, self.names = model, dataset.wnids, dataset.names

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
        ReaL labels that do not fit, ImageError for a picture that cannot be decoded.
        """
        self._require_weights()
        place, size, gather = self._place(device), imgsz or self.imgsz, _labelmap(labelmap)
        where, scores = data if data is not None else job.DATA, self._class_scores(place)
        model, rows = self._fused(place), None if per_class is None else PerClass()
        if per_class is not None:
            write_csv(per_class, [])  # what cannot be written is told before the work, not after
        opened = validation.open_split(
            self, scores, where, split, gather, ValTransform(size), batch, place, workers, backend, all_classes, real
        )
        with opened as (plan, batches):
            class_map, among = plan.matched
            seen = None if plots is None else error_analysis.Review()
            metrics = evaluate(
                model, batches, place, class_map, plan.class_scores, plan.evaluation, among, rows, observe=seen
            )
        if per_class is not None and rows is not None:
            write_csv(per_class, rows.results(plan.wnids, plan.names, plan.shown))
        if plots is not None and seen is not None:
            seen.save(plots, plan, {"split": split} | metrics.to_dict())
        return metrics

    def predict(
        self,
        source: Source,
        topk: int = 5,
        imgsz: int | None = None,
        device: str | None = None,
        on_error: Callable[[ImageError], None] | None = None,
    ) -> list[Prediction]:
        """The ``topk`` most probable classes of each picture of the source, or of a list of sources:

        a path, a folder, a pattern ("pictures/**/*.jpg"), a URL of any fsspec kind (of these too), the bytes of a
        picture's file, a PIL image, a uint8 array [H, W, 3], a uint8 tensor [3, H, W], all RGB.

        Raises CheckpointError when this classifier has no trained weights, ImageError naming the file that cannot be
        decoded (or passes over it and calls ``on_error``), InputError for what is not there or not a picture.
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
        """`predict`, one at a time, so that memory does not grow with the number of pictures; an iterator of sources
        is taken too. ``batch`` (64) pictures are computed at a time, while ``workers`` threads decode the next."""
        self._require_weights()
        place = self._place(device)
        return predict.predict(
            self._fused(place),
            source,
            wnids=self.wnids,
            names=self.names,
            topk=topk,
            transform=ValTransform(imgsz or self.imgsz),
            device=place,
            class_scores=self._class_scores(place),
            batch=batch or predict.BATCH,
            workers=workers,
            on_error=on_error,
        )

    def export(self, format: str = "onnx", out: str | Path | None = None, **options: Any) -> Exported:
        """Writes the model for other programs: onnx, openvino, tensorrt, torch-export, torchscript, or the weights for
        Ultralytics. See `imgtool.training.export.write.export` for ``options`` and what is raised."""
        return export(self, format, out, **options)

    def _place(self, device: str | None) -> torch.device:
        """Where to compute: an exported model stays where it was opened."""
        if not isinstance(self.model, Runtime):
            return resolve_device(device or self.device)
        if device not in (None, self.device):
            raise InputError(f"{self.checkpoint} is opened on {self.device or 'auto'} already, not on {device}")
        return self.model.device

    def _fused(self, device: torch.device) -> nn.Module:
        if isinstance(self.model, Runtime):
            return self.model
        return yolov8.fuse(self.model).to(device).to(memory_format=torch.channels_last)

    def _class_scores(self, device: torch.device) -> Callable[[Tensor], Tensor]:
        """What turns the model's outputs into logits a class."""
        return self.criterion.to(device).class_scores

    def _require_weights(self) -> None:
        if self.checkpoint is None:
            raise CheckpointError(f"this {self.size} has no trained weights: train it, or give a checkpoint or run")


def _labelmap(labelmap: str | Path | LabelMap | None) -> LabelMap | None:
    return labelmap if labelmap is None or isinstance(labelmap, LabelMap) else LabelMap.load(labelmap)
