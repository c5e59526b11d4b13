"""`Classifier`: train, validate and predict, from Python as from the command line."""

import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.loaders import open_loader
from imgtool.training import checkpoint, loggers, loop, losses, models, predict, recipes, review, validation
from imgtool.training.evaluate import Metrics, evaluate
from imgtool.training.models import ClassificationModel
from imgtool.training.predict import Prediction
from imgtool.training.recipes import Recipe
from imgtool.training.runs import Run
from imgtool.wordnet.errors import CheckpointError, DatasetError, ImageError, InputError
from imgtool.wordnet.evaluation import Evaluation
from imgtool.wordnet.relabel import LabelMap

DATA = "data/imagenet"
VAL_BATCH = 256  # images at a time where no gradients are kept


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

    ``Classifier("n")`` is a new, untrained one of the sizes n, s, m, l, x; ``Classifier("runs/train")`` or
    ``Classifier("runs/train/weights/best.pt")`` is a trained one. ``model`` is the torch module, ``wnids`` and
    ``names`` are its classes in the order of its logits (empty while it knows none).

    Raises InputError for an unknown size, CheckpointError for a file that is not a whole checkpoint.
    """

    model: ClassificationModel
    wnids: list[str]
    names: list[str]

    def __init__(self, size_or_checkpoint: str | Path = "n") -> None:
        self.checkpoint: Path | None = None  # where the weights came from
        self.metrics: dict[str, Any] | None = None  # of the checkpoint's epoch
        if str(size_or_checkpoint) in models.SCALES:
            self.size = str(size_or_checkpoint)
            self.model, self.wnids, self.names = models.build(self.size), [], []
            self.loss = "ce"
            self.imgsz = 224
        else:
            if not Path(size_or_checkpoint).exists():
                sizes = ", ".join(models.SCALES)
                raise CheckpointError(f"{size_or_checkpoint} is neither a size ({sizes}) nor a checkpoint or run here")
            self._load(checkpoint.find(size_or_checkpoint))

    def _load(self, path: Path) -> None:
        content = checkpoint.load(path)
        self.loss = content["recipe"].get("loss", "ce")
        self._criterion = losses.from_spec(self.loss, content["wnids"])
        model = models.build(content["size"], self._criterion.outputs, content["dropout"])
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
        `Logger`, or a list of these. ``plots`` draws what imgtool.training.review does, behind the last epoch.

        ``resume`` continues the run ``name`` (or the one this classifier was loaded from, or the latest) after its
        last whole epoch, with that run's size, recipe, seed and data; ``data`` may say where the data set lies now.
        A trained classifier starts from its weights; its last layer starts anew if the classes differ.

        ``on_epoch(epochs done, metrics)`` is called after every epoch. KeyboardInterrupt passes through.

        Raises InputError, DatasetError or CheckpointError for what is wrong with the arguments, TrainingError when
        training diverges.
        """
        where = resolve_device(device)
        logging = loggers.as_list(logger)
        overrides |= {"epochs": epochs, "batch": batch, "imgsz": imgsz}
        run: Run | None = None
        saved: dict[str, Any] | None = None
        if resume:
            run = Run.reopen(name if name is not None else self.checkpoint, quiet)
            settings, saved = run.read_settings(), checkpoint.load(run.last)
            plan = recipes.from_dict(saved["recipe"])
            _refuse_changes(plan, run, settings, recipe, seed, overrides)
            seed = settings["seed"]
            gathered = LabelMap.from_dict(settings["labelmap"]) if settings["labelmap"] else None
            dataset = Dataset(data if data is not None else settings["data"], gathered)
            if dataset.fingerprint != settings["fingerprint"]:
                raise DatasetError(f"{dataset.path} is not the data set that {run.path} was trained on")
            self._load(run.last)
            if saved["epoch"] >= plan.epochs:
                run.say(f"{run.path} is finished: all its {plan.epochs} epochs are done")
                self._load(run.best)
                return TrainResults(run.path, Metrics(**saved["resume"]["best"]), plan.epochs)
        else:
            seed = 0 if seed is None else seed
            plan = recipe if isinstance(recipe, Recipe) else recipes.load(recipe if recipe is not None else self.size)
            plan = plan.override(**overrides)
            dataset = Dataset(data if data is not None else DATA, _labelmap(labelmap))
            _check_splits(dataset, "train", "val")
            if plan.label_smoothing and not plan.loss.startswith("ce"):
                plan = plan.override(label_smoothing=0.0)  # it is cross-entropy's; run.json says what was done
            recipe_batch = plan.batch
            if batch is None:
                plan = plan.fit_batch(dataset.num_samples("train"))

        criterion = losses.from_spec(plan.loss, dataset.wnids, plan.label_smoothing)
        common: dict[str, Any] = {"backend": backend, "device": str(where), "seed": seed, "num_workers": workers}
        with (
            open_loader(
                dataset,
                "train",
                batch_size=plan.batch,
                image_size=plan.train_size_at(0),
                scale=(plan.crop_scale, 1.0),
                hflip=plan.hflip,
                drop_last=dataset.num_samples("train") >= plan.batch,  # a last batch of a few upsets batch norm
                order=order,
                on_error=on_error,
                **common,
            ) as train_loader,
            open_loader(dataset, "val", batch_size=VAL_BATCH, image_size=plan.imgsz, **common) as val_loader,
        ):
            if run is None or saved is None:
                run = Run.create(name, quiet)
                if plan.batch != recipe_batch:
                    run.say(f"batch {plan.batch} instead of {recipe_batch}, the data set being small; --batch sets it")
                torch.manual_seed(seed)
                self._begin(dataset, plan, criterion.outputs, run)
                run.write_settings(_settings(self, plan, dataset, seed, where, backend, workers))
            else:
                run.forget_results_after(saved["epoch"])
                run.say(f"resuming after epoch {saved['epoch']} of {plan.epochs}")
            run.logger = loggers.open_loggers(logging, run, run.read_settings())
            run.say(
                f"{self.size}: {models.count_parameters(self.model):,} parameters, {dataset.num_classes} classes, "
                f"{dataset.num_samples('train'):,} + {dataset.num_samples('val'):,} images, {plan.epochs} epochs, "
                f"batch {plan.batch}, on {where}, in {run.path}"
            )
            classes = loop.Classes(dataset.wnids, dataset.names)
            best = loop.train(
                self.model,
                plan,
                classes,
                train_loader,
                val_loader,
                run,
                where,
                criterion,
                seed,
                resume=saved,
                on_epoch=on_epoch,
            )
        if train_loader.skipped:
            run.say(f"{train_loader.skipped} damaged samples were left out of batches")
        run.say(f"done: top-1 {best.top1:.2%}, top-5 {best.top5:.2%}; the best weights are {run.best}")
        self._load(run.best)
        if plots:
            measure = partial(self.val, dataset.path, labelmap=dataset.labelmap, device=str(where), plots=run.path)
            review.after_training(run, plan.epochs, partial(measure, backend=backend, workers=workers))
        run.logger.close()
        return TrainResults(run.path, best, plan.epochs)

    def _begin(self, dataset: Dataset, plan: Recipe, outputs: int, run: Run) -> None:
        """A model for the data set's classes: new, or with the weights of the checkpoint that was loaded."""
        model = models.build(self.size, outputs, plan.dropout)
        if self.checkpoint is not None:
            weights = self.model.state_dict()
            if self.wnids != dataset.wnids or self.model.num_classes != outputs:
                run.say(f"the classes of {self.checkpoint} are not those of {dataset.path}: the last layer starts anew")
                weights = {key: value for key, value in weights.items() if ".linear." not in key}
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
        plots: str | Path | None = None,
    ) -> Metrics:
        """Top-1, top-5, loss and, where the classes are WordNet's, the hierarchical metrics on a split of a prepared
        data set, at the checkpoint's image size if not told.

        Classes are matched by wnid. A ``labelmap`` gathers the data set's classes, and the model's probabilities too
        unless it was trained on the targets. ``real`` is the path of real.json, for ReaL accuracy; ``plots`` a folder
        for what imgtool.training.review draws. Raises CheckpointError when this classifier has no trained weights or
        the data set's classes are not the checkpoint's; InputError for a label map or ReaL labels that do not fit.
        """
        self._require_weights()
        where = resolve_device(device)
        gather = _labelmap(labelmap)
        dataset = Dataset(data if data is not None else DATA, gather)
        _check_splits(dataset, split)
        class_map, class_scores, hierarchy = None, self._class_scores(where), None
        if gather is not None and self.wnids != dataset.wnids:
            class_scores = validation.gathered_scores(class_scores, self.wnids, gather)
        else:
            class_map, hierarchy = self._class_map(dataset), validation.hierarchy_of(self.wnids)
        if real is not None and hierarchy is None:
            raise InputError("ReaL labels are of ILSVRC2012's 1000 classes, and here are others")
        real_labels = None if real is None else validation.real_labels(dataset, split, real)
        evaluation = None if hierarchy is None else Evaluation(hierarchy, real=real_labels)
        model = models.fuse(self.model).to(where).to(memory_format=torch.channels_last)
        with open_loader(
            dataset,
            split,
            batch_size=batch or VAL_BATCH,
            image_size=imgsz or self.imgsz,
            augment=False,
            backend=backend,
            device=str(where),
            num_workers=workers,
        ) as loader:
            seen = None if plots is None else review.Review()
            metrics = evaluate(model, loader, where, class_map, class_scores, evaluation, seen)
        if plots is not None and seen is not None:
            seen.save(plots, dataset if class_map is None else self, {"split": split} | metrics.to_dict())
        return metrics

    def predict(
        self,
        source: predict.Source,
        topk: int = 5,
        imgsz: int | None = None,
        device: str | None = None,
        on_error: Callable[[ImageError], None] | None = None,
    ) -> list[Prediction]:
        """The ``topk`` most probable classes of each picture: a path, a folder, a PIL image, a uint8 array [H, W, 3],
        or a list of these.

        Raises CheckpointError when this classifier has no trained weights, ImageError naming the file that cannot be
        decoded (or passes over it and calls ``on_error``), InputError for what is not there or not a picture.
        """
        self._require_weights()
        where = resolve_device(device)
        model = models.fuse(self.model).to(where).to(memory_format=torch.channels_last)
        found = predict.predict(
            model,
            source,
            wnids=self.wnids,
            names=self.names,
            topk=topk,
            imgsz=imgsz or self.imgsz,
            device=where,
            class_scores=self._class_scores(where),
            on_error=on_error,
        )
        return list(found)

    def _class_scores(self, device: torch.device) -> Callable[[Tensor], Tensor]:
        """What turns the model's outputs into logits a class."""
        return self._criterion.to(device).class_scores

    def _require_weights(self) -> None:
        if self.checkpoint is None:
            raise CheckpointError(f"this {self.size} has no trained weights: train it, or give a checkpoint or run")

    def _class_map(self, dataset: Dataset) -> Tensor | None:
        """int64 [dataset classes]: the model's class index of each; None where they are the same."""
        if self.wnids == dataset.wnids:
            return None
        lacking = sorted(set(dataset.wnids) - set(self.wnids))
        extra = sorted(set(self.wnids) - set(dataset.wnids))
        if lacking or extra:
            differences = [
                f"{len(wnids)} {text}, {wnids[0]} first"
                for wnids, text in ((lacking, "only in the data set"), (extra, "only in the checkpoint"))
                if wnids
            ]
            raise CheckpointError(
                f"the classes of {self.checkpoint} are not those of {dataset.path}: {'; '.join(differences)}"
            )
        position = {wnid: index for index, wnid in enumerate(self.wnids)}
        return torch.tensor([position[wnid] for wnid in dataset.wnids])


def resolve_device(device: str | None = None) -> torch.device:
    """auto (or None) is CUDA if there is one, else the CPU; "0" is cuda:0. Raises InputError for one not there."""
    if device is None or device == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        where = torch.device(f"cuda:{device}" if str(device).isdigit() else device)
    except RuntimeError:
        raise InputError(f"there is no device {device!r}: give auto, cpu, cuda, or a GPU's number") from None
    if where.type == "cuda" and (where.index or 0) >= torch.cuda.device_count():
        raise InputError(f"there is no device {device}: torch sees {torch.cuda.device_count()} CUDA GPUs")
    return where


def _labelmap(labelmap: str | Path | LabelMap | None) -> LabelMap | None:
    return labelmap if labelmap is None or isinstance(labelmap, LabelMap) else LabelMap.load(labelmap)


def _check_splits(dataset: Dataset, *splits: str) -> None:
    for split in splits:
        if split not in dataset.splits:
            raise DatasetError(f"{dataset.path} has no split {split!r}, only {', '.join(dataset.splits)}")
        if dataset.num_samples(split) == 0:
            raise DatasetError(f"the split {split!r} of {dataset.path} is empty")


def _refuse_changes(
    plan: Recipe, run: Run, settings: dict[str, Any], recipe: Any, seed: int | None, overrides: dict[str, Any]
) -> None:
    """A resumed run keeps its settings. Raises InputError naming one that is asked to be another."""
    given = {key: value for key, value in overrides.items() if value is not None}
    changed = {key: value for key, value in given.items() if plan.to_dict().get(key) != value}
    if recipe is not None:
        changed["recipe"] = recipe
    if seed is not None and seed != settings["seed"]:
        changed["seed"] = seed
    if changed:
        key, value = next(iter(changed.items()))
        raise InputError(f"{run.path} cannot go on with {key} {value}: a resumed run keeps its settings (run.json)")


def _settings(
    classifier: Classifier,
    plan: Recipe,
    dataset: Dataset,
    seed: int,
    device: torch.device,
    backend: str,
    workers: int | None,
) -> dict[str, Any]:
    """run.json's content."""
    return {
        "argv": sys.argv,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "size": classifier.size,
        "weights": str(classifier.checkpoint) if classifier.checkpoint else None,
        "recipe": plan.to_dict(),
        "data": str(dataset.path.absolute()),
        "labelmap": dataset.labelmap.to_dict() if dataset.labelmap else None,
        "fingerprint": dataset.fingerprint,
        "seed": seed,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device} ({platform.machine()})",
        "backend": backend,
        "workers": workers,
        "versions": {"imgtool": checkpoint.version(), "python": platform.python_version(), "torch": torch.__version__},
    }
