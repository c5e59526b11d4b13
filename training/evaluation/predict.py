"""Predicts class probabilities for images from files, URLs or memory."""

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

BATCH = 64  # images per call of the model


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image, most probable first. The five lists are parallel."""

    path: str | None  # None for an image given in memory
    indices: list[int]
    wnids: list[str]
    names: list[str]
    probabilities: list[float]  # softmax over all classes, 0..1
    superclasses: list[str]  # imgtool.wordnet.imagenet.superclasses: dog, bird, …; "" for a class not in WordNet

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def images_of(source: Source) -> Iterator[ImageInput]:
    """Returns an iterator over the images of a source.

    A source is a path, folder, pattern or URL (expanded by `image_files.expand`); the bytes of an image file; a PIL
    image; a uint8 array [H, W, 3] or tensor [3, H, W]; or an iterable of these.

    Raises InputError for a path that does not exist (a path in a list or alone at once, in another iterable when it is
    reached), for a folder without images, and for an object that is not a source.
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
        f"cannot predict on {type(source).__name__}: give a path, folder, pattern or URL, the bytes of an image, a PIL "
        "image, a uint8 array [H, W, 3], a uint8 tensor [3, H, W], or a list of these"
    )


def read(image: ImageInput, transform: ValTransform) -> NDArray[np.uint8]:
    """Reads and transforms an image: uint8 [imgsz, imgsz, 3] RGB. EXIF orientation of files and PIL images is applied.

    Raises ImageError, naming the file, when it cannot be read or decoded; InputError for an array of another dtype or
    shape.
    """
    if isinstance(image, ImageFile | bytes):
        data, name = (image, "the given bytes") if isinstance(image, bytes) else (image.read(), image.name)
        try:
            return transform.decode(data)
        except ImageError as error:
            raise ImageError(f"cannot decode {name}: {error}") from error
    if isinstance(image, Image.Image):
        return transform(np.asarray(ImageOps.exif_transpose(image).convert("RGB")))
    is_tensor = isinstance(image, Tensor)
    shape, dtype = ("[3, H, W]", torch.uint8) if is_tensor else ("[H, W, 3]", np.uint8)
    if image.dtype != dtype or image.ndim != 3 or image.shape[0 if is_tensor else 2] != 3 or 0 in image.shape:
        raise InputError(f"an image must be uint8 {shape}, not {image.dtype} {list(image.shape)}")
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
    """Returns an iterator with one `Prediction` per image of the source, in order.

    ``model`` maps uint8 images to logits per class (imgtool.training.runtimes), in eval mode on ``device``. ``wnids``
    and ``names`` are those of its classes. ``workers`` threads (default: one per CPU core) read and decode up to two
    batches of ``batch`` images ahead.

    Raises what `images_of` and `read` raise. With ``on_error``, an image that cannot be decoded is skipped, and
    ``on_error`` is called with its error.
    """
    images = images_of(source)  # called here, so that a missing path is an error before the first prediction
    superclasses = superclass_names(tuple(wnids))

    def predict_batch(pairs: list[tuple[ImageInput, NDArray[np.uint8]]]) -> Iterator[Prediction]:
        values, indices = _top_classes(model, [crop for _, crop in pairs], min(topk, len(names)), device)
        for (image, _), best, probabilities in zip(pairs, indices, values, strict=True):
            yield Prediction(
                image.name if isinstance(image, ImageFile) else None,
                best,
                [wnids[i] for i in best],
                [names[i] for i in best],
                probabilities,
                [superclasses[i] for i in best],
            )

    def predictions() -> Iterator[Prediction]:
        pairs: list[tuple[ImageInput, NDArray[np.uint8]]] = []
        decode = partial(read, transform=transform)
        with closing(prefetch_map(images, decode, workers or available_cpus(), 2 * batch)) as crops:
            for image, crop in crops:
                if not isinstance(crop, ImageError):
                    pairs.append((image, crop))
                elif on_error is None:
                    raise crop
                else:
                    on_error(crop)
                if len(pairs) == batch:
                    yield from predict_batch(pairs)
                    pairs = []
        if pairs:
            yield from predict_batch(pairs)

    return predictions()


@torch.inference_mode()
def _top_classes(
    model: nn.Module,
    crops: list[NDArray[np.uint8]],
    topk: int,
    device: torch.device,
) -> tuple[list[list[float]], list[list[int]]]:
    """Returns the probabilities and the class indices of the ``topk`` most probable classes of each crop."""
    images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).to(device)  # channels_last without a copy
    top = model(images).softmax(dim=1).topk(topk, dim=1)
    return top.values.tolist(), top.indices.tolist()
