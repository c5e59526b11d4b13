"""The drawn source: its bytes depend on the seed alone, and its layout is that of the real one."""

from __future__ import annotations

import io
import tarfile

import pytest
import scipy.io
from PIL import Image

from imgtool.pipelines.annotations.devkit import read_devkit
from imgtool.pipelines.storage.folders import open_folder
from imgtool.sample import write_sample
from imgtool.wordnet.errors import DatasetError

ARCHIVES = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz")


def test_bytes_depend_on_the_seed_alone(drawn, tmp_path):
    write_sample(tmp_path / "again", train_count=8, val_count=2)
    for name in ARCHIVES:
        assert (tmp_path / "again" / name).read_bytes() == (drawn / name).read_bytes()
    with pytest.raises(DatasetError, match="exists already"):
        write_sample(tmp_path / "again")


def meta(path):
    with tarfile.open(path) as devkit:
        data = devkit.extractfile("ILSVRC2012_devkit_t12/data/meta.mat").read()
    return scipy.io.loadmat(io.BytesIO(data), squeeze_me=True)["synsets"]


def test_the_devkit_has_the_fields_of_the_real_one(drawn, mini):
    ours, real = meta(drawn / ARCHIVES[2]), meta(mini / ARCHIVES[2])
    assert ours.dtype.names == real.dtype.names
    real_rows = {str(row["WNID"]): row for row in real}
    for row in ours:
        assert str(row["WNID"]) in real_rows
        if int(row["num_children"]) == 0:
            assert int(row["ILSVRC2012_ID"]) == int(real_rows[str(row["WNID"])]["ILSVRC2012_ID"])
            assert str(row["words"]) == str(real_rows[str(row["WNID"])]["words"])


def test_the_labels_are_not_in_order(drawn):
    devkit = read_devkit(open_folder(drawn), ARCHIVES[2])
    assert len(devkit.ids) == 10
    assert sorted(devkit.ground_truth) == sorted(list(devkit.ids.values()) * 2)
    ids = list(devkit.ids.values())
    assert [devkit.ids[w] for w in sorted(devkit.ids)] != sorted(ids), (
        "IDs of the devkit are not in the order of the classes"
    )


def test_it_has_unusual_images(drawn):
    forms = []
    with tarfile.open(drawn / ARCHIVES[0]) as outer:
        for member in outer:
            with tarfile.open(fileobj=io.BytesIO(outer.extractfile(member).read())) as inner:
                for image in inner:
                    image = Image.open(inner.extractfile(image))
                    forms.append((image.format, image.mode))
    assert forms.count(("PNG", "RGB")) == 1
    assert forms.count(("JPEG", "CMYK")) == 1
    assert forms.count(("JPEG", "L")) == 10
