"""imgtool sample: draws a small data set in ILSVRC2012's raw layout."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import numpy as np

MTIME = 1349999999  # the month of the devkit; fixed, so that the archives' bytes depend on the seed alone


@click.command()
@click.option("--out", default="demo/ILSVRC2012", show_default=True, help="Folder for the archives.")
@click.option(
    "--train", "train_count", type=click.IntRange(4), default=160, show_default=True, help="Training images per class."
)
@click.option(
    "--val", "val_count", type=click.IntRange(1), default=20, show_default=True, help="Validation images per class."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of all drawing.")
def sample(out: str, train_count: int, val_count: int, seed: int) -> None:
    """Draw a small data set in ILSVRC2012's raw layout.

    It has train and val tars, a devkit, and ten classes that a network can learn. As in the real set, some images are
    grayscale or CMYK, and one is a PNG named .JPEG.
    """
    write_sample(Path(out), train_count, val_count, seed)
    click.echo(f"{out}: {train_count * 10:,} training and {val_count * 10:,} validation images of 10 classes")


def write_sample(out: Path, train_count: int = 160, val_count: int = 20, seed: int = 0) -> None:
    """Writes ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz below ``out``.

    Raises DatasetError if one of them exists.
    """
    import numpy as np

    from imgtool.drawing import CLASSES
    from imgtool.pipelines.annotations.devkit import DEVKITS
    from imgtool.pipelines.sources.ilsvrc2012 import TRAIN_ARCHIVE, VAL_ARCHIVE
    from imgtool.wordnet import orders
    from imgtool.wordnet.errors import DatasetError

    for name in (TRAIN_ARCHIVE, VAL_ARCHIVE, DEVKITS[0]):
        if (out / name).exists():
            raise DatasetError(f"{out / name} exists already: choose another --out or delete it")
    out.mkdir(parents=True, exist_ok=True)
    wnids = sorted(CLASSES)
    ids = dict(zip(orders.ilsvrc2012_wnids(), (int(i) for i in orders.ilsvrc2012_ids()), strict=True))

    with tarfile.open(out / TRAIN_ARCHIVE, "w") as outer:
        for number, wnid in enumerate(wnids):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as inner:
                for i in range(train_count):
                    rng = np.random.default_rng([seed, 0, number, i])
                    _add(inner, f"{wnid}_{i + 1}.JPEG", _image(wnid, rng, odd=i if number == 0 or i == 3 else -1))
            _add(outer, f"{wnid}.tar", buffer.getvalue())

    total = val_count * len(wnids)
    truth = np.random.default_rng([seed, 1]).permutation(np.repeat(np.arange(len(wnids)), val_count))
    with tarfile.open(out / VAL_ARCHIVE, "w") as archive:
        for n in range(total):
            rng = np.random.default_rng([seed, 2, n])
            _add(archive, f"ILSVRC2012_val_{n + 1:08d}.JPEG", _image(wnids[truth[n]], rng))

    ground_truth = "".join(f"{ids[wnids[c]]}\n" for c in truth)
    with (
        gzip.GzipFile(out / DEVKITS[0], "wb", mtime=MTIME) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as devkit,
    ):
        folder = "ILSVRC2012_devkit_t12/data"
        _add(devkit, f"{folder}/meta.mat", _meta(wnids, ids, train_count))
        _add(devkit, f"{folder}/ILSVRC2012_validation_ground_truth.txt", ground_truth.encode())


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mtime = len(data), MTIME
    archive.addfile(member, io.BytesIO(data))


def _image(wnid: str, rng: np.random.Generator, odd: int = -1) -> bytes:
    from imgtool.drawing import draw

    width, height = (int(side) for side in rng.integers(120, 320, 2))
    image, form = draw(wnid, width, height, rng), "JPEG"
    if odd == 1:
        form = "PNG"
    elif odd == 2:
        image = image.convert("CMYK")
    elif odd == 3:
        image = image.convert("L")
    buffer = io.BytesIO()
    image.save(buffer, form, quality=92)
    return buffer.getvalue()


def _meta(wnids: list[str], ids: dict[str, int], train_count: int) -> bytes:
    """Returns meta.mat with the devkit's fields: first the classes, then their ancestors; children by ID."""
    import numpy as np
    import scipy.io

    from imgtool import wordnet

    hierarchy = wordnet.load(wnids)
    nodes = [hierarchy[w] for w in wnids]
    nodes += sorted((s for s in hierarchy if s.class_index is None), key=lambda s: s.wnid)
    known = {s.wnid: ids.get(s.wnid, 1001 + i) for i, s in enumerate(nodes)}
    fields = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height")
    # A node's height is its longest path down to a leaf. Children come before parents, so one pass is enough.
    height: dict[str, int] = {}
    for s in sorted(nodes, key=lambda s: len(s.descendants())):
        height[s.wnid] = max((height[c.wnid] + 1 for c in s.children), default=0)
    synsets = np.empty((len(nodes), 1), [(name, object) for name in (*fields, "num_train_images")])
    for row, s in zip(synsets[:, 0], nodes, strict=True):
        children = [known[c.wnid] for c in s.children]
        row["ILSVRC2012_ID"], row["WNID"] = known[s.wnid], s.wnid
        row["words"], row["gloss"] = ", ".join(s.lemmas), s.gloss
        row["num_children"], row["children"], row["wordnet_height"] = len(children), children, height[s.wnid]
        row["num_train_images"] = train_count if s.class_index is not None else 0
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"synsets": synsets}, do_compression=True)
    data = bytearray(buffer.getvalue())
    data[:116] = b"MATLAB 5.0 MAT-file, drawn by imgtool sample".ljust(116)  # scipy writes the current time here
    return bytes(data)
