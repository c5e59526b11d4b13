"""Images of any kind to class probabilities."""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor, nn

from imgtool.pipelines.codec.transform import ValTransform
from imgtool.pipelines.sources.image_files import ImageFile, check_exists, expand
from imgtool.pipelines.threads import available_cpus, prefetch_map
from imgtool.wordnet.errors import ImageError, InputError
from imgtool.wordnet.imagenet.superclasses import superclass_names

InMemory: TypeAlias = bytes | Image.Image | NDArray[np.uint8] | Tensor
ImageInput: TypeAlias = ImageFile | InMemory
Source: TypeAlias = str | Path | ImageInput | Iterable["Source"]

BATCH = 64  # images computed at a time


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image, best first; the five lists run in parallel."""

    path: str | None  # None for an image given in memory
    indices: list[int]
    wnids: list[str]
    names: list[str]
    probabilities: list[float]  # softmax over all classes, 0..1
    superclasses: list[str]  # imgtool.wordnet.imagenet.superclasses: dog, bird, …; "" for a class that is not WordNet's

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def images_of(source: Source) -> Iterator[ImageInput]:
    """The single images of a source, one after the other: what `image_files.expand` makes of a path,
    folder, pattern or URL; the bytes of an image's file; a PIL image; a uint8 array [H, W, 3] or tensor [3, H, W]; or
    an iterable of these.

    Raises InputError when a path does not exist (those in a list at once, others when their turn comes), a folder has
    no image, or it is none of these.
    """
    if isinstance(source, str | Path):
        check_exists(str(source))
        return expand(str(source))
    if isinstance(source, ImageFile | bytes | Image.Image | np.ndarray | Tensor):
        return iter([source])
    if isinstance(source, Iterable) and not isinstance(source, io.IOBase):
        if isinstance(source, list | tuple):
            for part in source:
                if isinstance(part, str | Path):
                    check_exists(str(part))
        return (image for part in source for image in images_of(part))
    raise InputError(
        f"cannot predict on a {type(source).__name__}: give a path, folder, pattern or URL, an image's bytes, a PIL "
        "image, a uint8 array [H, W, 3], a uint8 tensor [3, H, W], or a list of them"
    )


def read(image: ImageInput, transform: ValTransform) -> NDArray[np.uint8]:
    """An image through the transform, uint8 [imgsz, imgsz, 3] RGB; files and PIL images are turned upright by EXIF.

    Raises ImageError, naming the file, when it cannot be read or decoded; InputError for an array of another kind.
    """
    if isinstance(image, ImageFile | bytes):
        data, name = (image, "the bytes given") if isinstance(image, bytes) else (image.read(), image.name)
        try:
            return transform.decode(data)
        except ImageError as error:
            raise ImageError(f"cannot decode {name}: {error}") from error
    if isinstance(image, Image.Image):
        return transform(np.asarray(ImageOps.exif_transpose(image).convert("RGB")))
    is_tensor = isinstance(image, Tensor)
    wanted, kind = ("[3, H, W]", torch.uint8) if is_tensor else ("[H, W, 3]", np.uint8)
    if image.dtype != kind or image.ndim != 3 or image.shape[0 if is_tensor else 2] != 3 or 0 in image.shape:
        raise InputError(f"an image must be uint8 {wanted}, not {image.dtype} {list(image.shape)}")
    pixels = image.permute(1, 2, 0).cpu().numpy() if isinstance(image, Tensor) else image
    return transform(np.ascontiguousarray(pixels))


def predict(
    model: nn.Module,
    source: Source,
    *,
    wnids: Sequence[str],
    names: Sequence[str],
    topk: int,
    transform: ValTransform,
    device: torch.device,
    batch: int = BATCH,
    workers: int | None = None,
    on_error: Callable[[ImageError], None] | None = None,
) -> Iterator[Prediction]:
    """A `Prediction` for each of the source's images, in order. ``model`` is a runner
    (imgtool.training.runtimes) in eval mode on ``device``. ``workers`` threads (default: this machine's cores) read
    and decode up to two batches ahead.

    Raises what `images` and `read` raise; with ``on_error`` a file that cannot be decoded is passed over and its
    error given to that.
    """
    todo = images_of(source)  # what is not there is told now, not when the first prediction is asked for
    superclasses = superclass_names(tuple(wnids))

    def computed(part: list[tuple[ImageInput, NDArray[np.uint8]]]) -> Iterator[Prediction]:
        values, indices = _compute(model, [crop for _, crop in part], min(topk, len(names)), device)
        for (image, _), best, probabilities in zip(part, indices, values, strict=True):
            yield Prediction(
                image.name if isinstance(image, ImageFile) else None,
                best,
                [wnids[i] for i in best],
                [names[i] for i in best],
                probabilities,
                [superclasses[i] for i in best],
            )

    def predictions() -> Iterator[Prediction]:
        part: list[tuple[ImageInput, NDArray[np.uint8]]] = []
        work = partial(read, transform=transform)
        with closing(prefetch_map(todo, work, workers or available_cpus(), 2 * batch)) as crops:
            for image, crop in crops:
                if not isinstance(crop, ImageError):
                    part.append((image, crop))
                elif on_error is None:
                    raise crop
                else:
                    on_error(crop)
                if len(part) == batch:
                    yield from computed(part)
                    part = []
        if part:
            yield from computed(part)

    return predictions()


@torch.inference_mode()
def _compute(
    model: nn.Module,
    crops: list[NDArray[np.uint8]],
    topk: int,
    device: torch.device,
) -> tuple[list[list[float]], list[list[int]]]:
    """The probabilities and class indices of the best classes of each crop."""
    images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).to(device)  # channels_last as it lies
    best = model(images).softmax(dim=1).topk(topk, dim=1)
    return best.values.tolist(), best.indices.tolist()
