"""Pictures of any kind to class probabilities."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor, nn

from imgtool.pipelines import codec
from imgtool.training.evaluate import has_bf16, to_float
from imgtool.wordnet.errors import ImageError, InputError

Picture: TypeAlias = str | Path | Image.Image | NDArray[np.uint8]
Source: TypeAlias = Picture | Sequence[Picture]

BATCH = 64  # pictures computed at a time


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one picture, best first; the four lists run in parallel."""

    path: str | None  # None for a picture given in memory
    indices: list[int]
    wnids: list[str]
    names: list[str]
    probabilities: list[float]  # softmax over all classes, 0..1

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def pictures(source: Source) -> list[Picture]:
    """The single pictures of a source: a path, a folder (its picture files, sorted, those in its subfolders too), a
    PIL image, a uint8 array [H, W, 3], or a sequence of these.

    Raises InputError when a path does not exist, a folder has no picture, or it is none of these.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        if not path.is_dir():
            if not path.exists():
                raise InputError(f"there is no picture {path}")
            return [path]
        found: list[Picture] = []
        found += sorted(
            file for file in path.rglob("*") if file.suffix.lower() in codec.PICTURE_SUFFIXES and file.is_file()
        )
        if not found:
            raise InputError(
                f"there is no picture in {path}: none of its files ends in {', '.join(codec.PICTURE_SUFFIXES)}"
            )
        return found
    if isinstance(source, Image.Image | np.ndarray):
        return [source]
    if isinstance(source, list | tuple):
        return [picture for part in source for picture in pictures(part)]
    kind = type(source).__name__
    raise InputError(f"cannot predict on a {kind}: give a path, a PIL image, a uint8 array [H, W, 3] or a list of them")


def read(picture: Picture) -> NDArray[np.uint8]:
    """A picture's pixels, uint8 [H, W, 3] RGB, upright by EXIF.

    Raises ImageError, naming the path, when a file cannot be decoded; InputError for an array of another kind.
    """
    if isinstance(picture, Path):
        try:
            return codec.decode(picture.read_bytes(), exif=True)
        except ImageError as error:
            raise ImageError(f"cannot decode {picture}: {error}") from error
        except OSError as error:
            raise ImageError(f"cannot read {picture}: {error.strerror}") from error
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
            raise InputError(f"a picture must be uint8 [H, W, 3], not {picture.dtype} {list(picture.shape)}")
        return picture
    assert isinstance(picture, Image.Image), "pictures() leaves no other kind"
    return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))


@torch.inference_mode()
def predict(
    model: nn.Module,
    source: Source,
    *,
    wnids: Sequence[str],
    names: Sequence[str],
    topk: int,
    imgsz: int,
    device: torch.device,
    class_scores: Callable[[Tensor], Tensor],
    on_error: Callable[[ImageError], None] | None = None,
) -> Iterator[Prediction]:
    """A `Prediction` for each of the source's pictures, in order, through the validation transform: short side to
    ``imgsz``, centre crop, /255. ``model`` must be in eval mode on ``device``; ``class_scores`` turns its outputs into
    logits a class.

    Raises what `pictures` and `read` raise; with ``on_error`` a file that cannot be decoded is passed over and its
    error given to that.
    """
    todo = pictures(source)
    topk = min(topk, len(names))
    for start in range(0, len(todo), BATCH):
        part, crops = [], []
        for picture in todo[start : start + BATCH]:
            try:
                crops.append(codec.center_crop(read(picture), imgsz))
                part.append(picture)
            except ImageError as error:
                if on_error is None:
                    raise
                on_error(error)
        if not part:
            continue
        images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).to(device)  # channels_last as it lies
        with torch.autocast(device.type, torch.bfloat16, enabled=has_bf16(device)):
            outputs = model(to_float(images)).float()
        best = class_scores(outputs).softmax(dim=1).topk(topk, dim=1)
        rows = zip(part, best.indices.tolist(), best.values.tolist(), strict=True)
        for picture, indices, probabilities in rows:
            path = str(picture) if isinstance(picture, Path) else None
            yield Prediction(path, indices, [wnids[i] for i in indices], [names[i] for i in indices], probabilities)
