"""Class folders as people arrange them: names of splits, nested, empty and hidden folders, images beside them."""

from __future__ import annotations

import pytest

from imgtool.pipelines.prepare import prepare
from imgtool.pipelines.prepare.settings import Settings
from imgtool.pipelines.sources import open_source
from imgtool.wordnet.errors import SourceError

TWO = {"train/ant/0.jpg": None, "train/bee/1.jpg": None}


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (["train", "valid", "test"], ["train", "val", "test"]),
        (["train", "test"], ["train", "test"]),
        (["training", "testing"], ["train", "test"]),
        (["train", "dev"], ["train", "val"]),
        (["train", "eval"], ["train", "val"]),
        (["Train", "Validation", "Test"], ["train", "val", "test"]),
        (["data/train", "data/val"], ["train", "val"]),
        (["val", "test"], ["val", "test"]),
    ],
)
def test_every_labelled_split_is_read(make_tree, listed, folders, splits, said):
    files = {f"{folder}/{name}/{i}.jpg": None for folder in folders for i, name in enumerate(("ant", "bee"))}
    source = open_source(make_tree({**files, "readme.txt": "mine"}))
    assert (list(source.splits), source.wnids, said(source)) == (splits, ["ant", "bee"], [])
    for split, folder in zip(splits, folders, strict=True):
        labels = {name[-len("ant/0.jpg") :]: label for name, label in listed(source)[split].items()}
        assert labels == {"ant/0.jpg": "ant", "bee/1.jpg": "bee"}, folder


def test_a_test_split_with_labels_is_stored(make_folder, tmp_path):
    files = {f"{split}/{name}/{i}.jpg": None for split in ("train", "test") for name in ("ant", "bee") for i in (0, 1)}
    summary = prepare(make_folder(files), tmp_path / "out", Settings(max_side=64), workers=1)
    assert summary.stored == {"train": 4, "test": 4}


def test_a_flat_test_folder_has_no_labels(make_tree, listed):
    source = open_source(make_tree({**TWO, "test/7.jpg": None, "test/8.jpg": None}))
    assert list(listed(source)["test"].values()) == ["-", "-"]


@pytest.mark.parametrize("twice", [("val", "valid"), ("test", "Testing"), ("train", "training")])
def test_two_folders_of_one_split_are_refused(make_tree, twice):
    files = {f"{folder}/{name}/1.jpg": None for folder in (*twice, "train") for name in ("ant", "bee")}
    with pytest.raises(SourceError, match=f"two folders of the split .*{twice[1]}"):
        open_source(make_tree(files))


def test_a_split_beside_class_folders_is_refused(make_tree):
    with pytest.raises(SourceError, match="a folder test beside class folders"):
        open_source(make_tree({"ant/0.jpg": None, "bee/1.jpg": None, "test/2.jpg": None}))


def test_folders_that_are_named_for_splits_may_be_classes(make_tree, listed):
    source = open_source(make_tree({"car/0.jpg": None, "train/1.jpg": None}))
    assert (source.splits, source.wnids) == (("train",), ["car", "train"])
    files = {f"{split}/{name}/0.jpg": None for split in ("train", "test") for name in ("car", "train")}
    source = open_source(make_tree(files, "second"))
    assert (source.splits, source.wnids) == (("train", "test"), ["car", "train"])


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["animal/dog", "animal/cat", "plant/oak"], ["dog", "cat", "oak"]),
        (["animal/crane", "animal/dog", "machine/crane"], ["animal/crane", "animal/dog", "machine/crane"]),
        (["animal/crane", "machine/crane"], ["animal/crane", "machine/crane"]),
        (["dog", "wild/wolf"], ["dog", "wolf"]),
        (["n01443537/images", "n01629819/images"], ["n01443537", "n01629819"]),
        (["a/b/c", "a/d/e"], ["c", "e"]),
    ],
)
@pytest.mark.parametrize("top", ["train/", "top/train/", ""])
def test_nested_class_folders(make_tree, listed, paths, expected, top, said):
    source = open_source(make_tree({f"{top}{path}/{i}.jpg": None for i, path in enumerate(paths)}))
    assert sorted(listed(source)["train"].values()) == sorted(expected)
    assert source.wnids == sorted(expected)
    assert any("nested: the images in" in note for note in said(source)) == any(
        "/" in p for p in paths if "images" not in p
    )


@pytest.mark.parametrize(("train", "val"), [("animal/", ""), ("", "animal/"), ("a/animal/", "animal/")])
def test_validation_folders_may_be_less_nested_than_train(make_tree, listed, train, val):
    files = {f"train/{train}{name}/0.jpg": None for name in ("cat", "dog")}
    source = open_source(make_tree({**files, f"val/{val}cat/1.jpg": None}))
    assert (source.wnids, list(listed(source)["val"].values())) == (["cat", "dog"], ["cat"])


def test_folders_of_other_places_are_other_classes(make_tree, listed):
    files = {f"train/{name}/0.jpg": None for name in ("animal/crane", "animal/dog")}
    with pytest.raises(SourceError, match="its class machine/crane is not among"):
        listed(open_source(make_tree({**files, "val/machine/crane/1.jpg": None})))


def test_validation_folders_may_be_nested_like_train(make_tree, listed):
    paths = [f"{split}/{path}/1.jpg" for split in ("train", "val") for path in ("animal/dog", "plant/oak")]
    assert list(listed(open_source(make_tree(dict.fromkeys(paths))))["val"].values()) == ["dog", "oak"]


def test_a_class_folder_inside_another_is_refused(make_tree):
    with pytest.raises(SourceError, match="dog/puppy/ is a subfolder of a class folder, dog/"):
        open_source(make_tree({"train/dog/0.jpg": None, "train/dog/puppy/1.jpg": None, "train/cat/2.jpg": None}))


@pytest.mark.parametrize("hidden", [".ipynb_checkpoints", ".git", "@eaDir", "__MACOSX", "ant/.thumbs"])
@pytest.mark.parametrize("top", ["train/", ""])
def test_hidden_folders_are_no_classes(make_tree, listed, hidden, top):
    files = {f"{top}ant/0.jpg": None, f"{top}bee/1.jpg": None, f"{top}{hidden}/2.jpg": None, f"{top}ant/._0.jpg": b"x"}
    source = open_source(make_tree(files))
    assert source.wnids == ["ant", "bee"]
    assert len(listed(source)["train"]) == 2


def test_images_beside_class_folders_are_skipped_and_named(make_tree, listed, said):
    source = open_source(make_tree({**TWO, "train/stray.jpg": None, "train/ant/x.txt": "x"}))
    assert [v for k, v in listed(source)["train"].items() if "stray" in k] == ["!the image is in no class folder"]
    [note] = said(source)
    assert note.startswith("images of train in no class folder, not stored: 1 (")
    assert "stray.jpg" in note


def test_skipped_images_have_a_row_and_the_data_set_is_whole(make_folder, tmp_path):
    from imgtool.pipelines.dataset import Dataset
    from imgtool.pipelines.dataset.verify import verify

    files = {**TWO, **{f"train/ant/{i}.jpg": None for i in range(5)}, "train/stray.jpg": None}
    summary = prepare(make_folder(files), tmp_path / "out", Settings(max_side=64), workers=1)
    assert (summary.stored, summary.tally.skipped) == ({"train": 6}, 1)
    rows = Dataset(tmp_path / "out").manifest("train").to_pylist()
    assert [row["status"] for row in rows if row["key"] == "stray"] == ["skipped:the image is in no class folder"]
    assert verify(tmp_path / "out").faults == []


def test_images_outside_of_the_splits_are_counted(make_tree):
    source = open_source(make_tree({**TWO, "logo.png": None, "docs/a/figure.png": None}))
    assert source.wnids == ["ant", "bee"]
    assert source.passed_over.counts["image outside the splits' folders"] == 2
    [note] = source.passed_over.notes()
    assert "logo.png" in note or "docs/a/figure.png" in note


def test_a_class_without_images_keeps_its_index(make_tree, said):
    source = open_source(make_tree({**TWO, "train/arc/notes.txt": "none", "val/ant/2.jpg": None}))
    assert source.wnids == ["ant", "arc", "bee"]
    assert said(source) == ["class folders of train without images, each a class of 0 samples: 1 (arc)"]


def test_an_empty_class_folder_keeps_its_index(make_folder, said):
    source = open_source(make_folder({**TWO, "train/arc/": None, "train/ant/empty/": None}))
    assert source.wnids == ["ant", "arc", "bee"]
    source = open_source(make_folder({"train/a/ant/0.jpg": None, "train/b/bee/1.jpg": None, "train/a/arc/": None}, "n"))
    assert source.wnids == ["ant", "arc", "bee"]
    source = open_source(make_folder({"ant/0.jpg": None, "bee/1.jpg": None, "runs/": None}, "top"))
    assert source.wnids == ["ant", "bee"]
    assert said(source) == ["folders without images, which are not classes: 1 (runs)"]


def test_a_class_that_train_lacks_is_refused(make_tree):
    source = open_source(make_tree({**TWO, "test/cow/2.jpg": None}))
    with pytest.raises(SourceError, match="its class cow is not among the 2 folders"):
        list(source.records("test"))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"train/0.jpg": None, "test/1.jpg": None}, "has 2 images in test, train, no class folders"),
        ({"train/cat.0.jpg": None, "train/dog.0.jpg": None}, "no class folders"),
        ({"images/0.jpg": None, "images/1.jpg": None, "notes.md": "x"}, "has 2 images in images and notes.md"),
        ({"0.jpg": None, "a.pdf": "x", "b.pdf": "x", "c.pdf": "x", "d.md": "x"}, "has 1 images and 3 .pdf, 1 .md"),
        ({"a.txt": "x"}, "has a.txt, no class folders"),
        ({"set.zip": "x", "a.txt": "x"}, "give its path: --src .*set.zip|holds archives .set.zip.* unpack it first"),
    ],
)
def test_what_was_seen_is_said(make_tree, files, said):
    with pytest.raises(SourceError, match=said) as error:
        open_source(make_tree(files))
    assert "give --src one of" in str(error.value)
    assert "\n" not in str(error.value)


def test_flat_training_images_are_refused(make_tree):
    with pytest.raises(SourceError, match="the images in train/ are in no class folder"):
        open_source(make_tree({"train/0.jpg": None, "val/ant/1.jpg": None, "val/bee/1.jpg": None}))
