"""The default data set, and checks that a split can be used."""

from imgtool.pipelines.dataset import Dataset
from imgtool.wordnet.errors import DatasetError

DATA = "data/imagenet"
NO_VAL = "prepare it with --val-fraction 0.1, or name another split with --val-split"
VAL_BATCH = 256  # images per batch at validation, where no gradients are kept


def check_splits(dataset: Dataset, *splits: str) -> None:
    """Raises DatasetError for a split that the data set lacks or that is empty."""
    for split in splits:
        if split not in dataset.splits:
            advice = f"; {NO_VAL}" if split == "val" else ""
            raise DatasetError(f"{dataset.path} has no split {split!r}, only {', '.join(dataset.splits)}{advice}")
        if dataset.num_samples(split) == 0:
            raise DatasetError(f"the split {split!r} of {dataset.path} is empty")


def check_labelled(dataset: Dataset, split: str) -> None:
    """Raises DatasetError if samples of the split have no label, as ILSVRC2012's test images do."""
    unlabelled = dataset.num_unlabelled(split)
    if unlabelled:
        raise DatasetError(f"{unlabelled:,} images of the split {split!r} of {dataset.path} have no label; {NO_VAL}")
