"""The default data set, and checks that a split can be used."""

from imgtool.pipelines.dataset import Dataset
from imgtool.wordnet.errors import DatasetError

DATA = "data/imagenet"
VAL_BATCH = 256  # images per batch at validation, where no gradients are kept


def check_splits(dataset: Dataset, *splits: str) -> None:
    """Raises DatasetError for a split that the data set lacks or that is empty."""
    for split in splits:
        if split not in dataset.splits:
            raise DatasetError(f"{dataset.path} has no split {split!r}, only {', '.join(dataset.splits)}")
        if dataset.num_samples(split) == 0:
            raise DatasetError(f"the split {split!r} of {dataset.path} is empty")
