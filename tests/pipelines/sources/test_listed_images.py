"""Images that a table lists: CSV, TSV, JSON and JSON lines, as people write them."""

from __future__ import annotations

import json

import pytest

from imgtool.pipelines.prepare import prepare
from imgtool.pipelines.prepare.settings import Settings
from imgtool.pipelines.sources import open_source
from imgtool.pipelines.sources.layout import classes_of
from imgtool.wordnet.errors import SourceError

IMAGES = {"images/0.jpg": None, "images/1.jpg": None, "images/2.jpg": None}
TRUTH = {"images/0.jpg": "ant", "images/1.jpg": "bee", "images/2.jpg": "ant"}
ROWS = [("images/0.jpg", "ant"), ("images/1.jpg", "bee"), ("images/2.jpg", "ant")]


def csv(rows, header="path,label", by=","):
    return "\n".join([header, *(by.join(row) for row in rows)]) + "\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", csv(ROWS)),
        ("labels.csv", "\ufeff" + csv(ROWS, "File Name,Class").replace("\n", "\r\n")),
        ("labels.csv", csv(ROWS, "path;label", ";")),
        ("labels.tsv", csv(ROWS, "filename\tcategory", "\t")),
        ("labels.csv", csv([(f'"{path}"', f'"{label}"') for path, label in ROWS], "image,wnid")),
        ("labels.csv", csv([("7", label, f"./{path}") for path, label in ROWS], "id,label,path")),
        ("labels.csv", csv([(path.replace("/", "\\"), label) for path, label in ROWS])),
        ("labels.csv", csv([(f"/home/me/set/{path}", label) for path, label in ROWS])),
        ("labels.csv", csv([(path[len("images/") :], label) for path, label in ROWS], "file_name,label")),
        ("labels.csv", csv([(path[len("images/") : -4], label) for path, label in ROWS], "image_id,label")),
        ("labels.csv", csv(ROWS[1:], ",".join(ROWS[0]))),
        ("labels.csv", csv([(*row, "1") for row in ROWS], "path,label,dataset")),
        ("images/labels.csv", csv([(path[len("images/") :], label) for path, label in ROWS])),
        ("labels.jsonl", "\n".join(json.dumps({"image": path, "label": label}) for path, label in ROWS)),
        ("labels.json", json.dumps([{"file": path, "class": label} for path, label in ROWS])),
        ("labels.json", json.dumps(dict(ROWS))),
    ],
)
def test_tables(make_tree, listed, name, text, said):
    source = open_source(make_tree({**IMAGES, name: text, "readme.md": "mine"}))
    assert (source.layout, source.wnids) == ("table", ["ant", "bee"])
    assert listed(source) == {"train": {path: TRUTH[path] for path, _ in ROWS}} or listed(source) == {
        "train": {f"source/{path}": label for path, label in ROWS}
    }
    assert said(source) == [f"the labels are those in {name}"]


def test_quoted_names_with_commas_and_spaces(make_tree, listed):
    files = {"a, b.jpg": None, "c d.jpg": None}
    source = open_source(
        make_tree({**files, "labels.csv": 'path,label\n"a, b.jpg","tench, Tinca"\nc d.jpg,"say ""x"""\n'})
    )
    assert listed(source)["train"] == {"a, b.jpg": "tench, Tinca", "c d.jpg": 'say "x"'}


def test_numbers_are_class_indices(make_tree, listed):
    rows = [("images/0.jpg", "2"), ("images/1.jpg", "0.0")]
    source = open_source(make_tree({**IMAGES, "labels.csv": csv(rows)}))
    assert source.wnids == ["000", "001", "002"]
    assert list(listed(source)["train"].values()) == ["002", "000"]


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        (
            {"labels.csv": csv([(*ROWS[0], "train"), (*ROWS[1], "Valid"), (*ROWS[2], "test")], "path,label,split")},
            "tvx",
        ),
        ({"train.csv": csv(ROWS[:1]), "val.csv": csv(ROWS[1:2]), "test.csv": csv(ROWS[2:])}, "tvx"),
        ({"train_labels.csv": csv(ROWS[:2]), "dev.jsonl": json.dumps({"path": ROWS[2][0], "label": "ant"})}, "ttv"),
    ],
)
def test_splits(make_tree, listed, tables, expected):
    found = listed(open_source(make_tree({**IMAGES, **tables})))
    split_of = {path[-5:]: split for split, labels in found.items() for path in labels}
    assert [split_of[path[-5:]] for path, _ in ROWS] == [{"t": "train", "v": "val", "x": "test"}[e] for e in expected]


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_hugging_faces_image_folder(make_tree, listed, name):
    """A table per split, whose paths are relative to its folder."""
    files = {}
    for split, labels in (("train", ["ant", "bee"]), ("test", ["bee"])):
        rows = [(f"{i}.png", label) for i, label in enumerate(labels)]
        files |= {f"{split}/{path}": None for path, _ in rows}
        files[f"{split}/{name}"] = (
            csv(rows, "file_name,label")
            if name.endswith("csv")
            else "\n".join(json.dumps({"file_name": path, "label": label}) for path, label in rows)
        )
    found = listed(open_source(make_tree(files)))
    assert found == {"train": {"train/0.png": "ant", "train/1.png": "bee"}, "test": {"test/0.png": "bee"}}


def test_metadata_without_labels_leaves_class_folders(make_tree):
    files = {f"train/{name}/0.png": None for name in ("ant", "bee")} | {
        "train/metadata.csv": csv([("ant/0.png", "nice")], "file_name,caption")
    }
    assert open_source(make_tree(files)).layout == "class-folders"


def test_rows_that_cannot_be_stored(make_tree, listed, said):
    """A missing file, an empty path, no label: rows with their cause. Images that no row names are counted."""
    rows = [ROWS[0], ("images/9.jpg", "bee"), ("", "bee"), ("images/1.jpg", ""), ("../up.jpg", "ant"), ROWS[0]]
    source = open_source(make_tree({**IMAGES, "labels.csv": csv(rows)}))
    found = list(listed(source)["train"].values())
    missing = "!no such image in the source"
    assert found == ["ant", missing, "!the table states no path", "!the table states no label", missing]
    assert "repeated rows, passed over: 1 (images/0.jpg)" in said(source)
    assert source.passed_over.counts["image that is not in labels.csv"] == 1
    assert "2.jpg" in source.passed_over.first["image that is not in labels.csv"]


def test_prepare_counts_the_rows(make_folder, tmp_path):
    rows = [*ROWS, ("images/9.jpg", "bee")]
    summary = prepare(
        make_folder({**IMAGES, "labels.csv": csv(rows)}), tmp_path / "out", Settings(max_side=64), workers=1
    )
    assert (summary.stored, summary.tally.skipped) == ({"train": 3}, 1)
    assert summary.tally.status["skipped:no such image in the source"] == 1


def test_unlabelled_rows_of_a_test_split_are_stored(make_tree, listed):
    rows = [(*ROWS[0], "train"), (*ROWS[1], "train"), ("images/2.jpg", "", "test")]
    source = open_source(make_tree({**IMAGES, "labels.csv": csv(rows, "path,label,split")}))
    assert list(listed(source)["test"].values()) == ["-"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a.csv": csv(ROWS), "b.csv": csv(ROWS)}, "several tables of labels, a.csv, b.csv; give one of them as --src"),
        (
            {"a.csv": csv([("x/7.jpg", "ant")])},
            "none of the paths in a.csv names an image here; the first is 'x/7.jpg'",
        ),
        ({"a.csv": csv([(path, "") for path, _ in ROWS])}, "a.csv states no label"),
        ({"a.csv": csv([ROWS[0], ("images/1.jpg",)])}, "a.csv, line 3: has 1 fields"),
        ({"a.csv": csv([ROWS[0], ("images/1.jpg", "ant", "small")])}, "a.csv, line 3: has 3 fields"),
        (
            {"a.csv": csv([(*ROWS[0], "train"), (*ROWS[1], "extra")], "path,label,split")},
            "the split 'extra' is unknown",
        ),
        ({"a.csv": csv([(*row, "x") for row in ROWS[1:]], "images/0.jpg,ant,x")}, "has no line of column names"),
        ({"a.json": json.dumps([{"path": "images/0.jpg", "label": [1]}])}, "label is not one label"),
        ({"a.csv": csv(ROWS, "path,mood")}, r"3 images in images and a.csv \(path,mood\), no class folders"),
    ],
)
def test_unusable_tables(make_tree, files, said):
    with pytest.raises(SourceError, match=said) as error:
        open_source(make_tree({**IMAGES, **files}))
    assert "\n" not in str(error.value)


def test_a_table_given_by_its_path(make_folder, listed):
    root = make_folder({**IMAGES, "a.csv": csv(ROWS), "b.csv": csv([(path, "x") for path, _ in ROWS])})
    assert open_source(root / "a.csv").wnids == ["ant", "bee"]
    assert open_source(root / "b.csv").wnids == ["x"]


def test_a_table_that_repeats_the_class_folders(make_tree):
    """Class folders count if the table says the same or little; else the table does."""
    folders = {f"train/{name}/{i}.jpg": None for name in ("ANT", "BEE") for i in (0, 1)}
    same = csv([(path, path.split("/")[1].lower()) for path in folders])
    assert open_source(make_tree({**folders, "labels.csv": same}, "same")).layout == "class-folders"
    few = csv([("train/ANT/0.jpg", "BEE")])
    assert open_source(make_tree({**folders, "fixes.csv": few}, "few")).layout == "class-folders"
    other = csv([(path, f"class {path[-5]}") for path in folders])
    source = open_source(make_tree({**folders, "labels.csv": other}, "other"))
    assert (source.layout, source.wnids) == ("table", ["class 0", "class 1"])


def test_sample_submissions_are_no_labels(make_tree, said):
    source = open_source(make_tree({**IMAGES, "train.csv": csv(ROWS), "sample_submission.csv": csv([ROWS[0]])}))
    assert said(source) == ["the labels are those in train.csv"]


@pytest.mark.parametrize("label", ["nan", "NaN", "None", "null", "NULL", "<NA>", "", "-1"])
def test_texts_that_are_no_labels(make_folder, listed, label):
    rows = [ROWS[0], ROWS[1], (ROWS[2][0], label)]
    source = open_source(make_folder({**IMAGES, "labels.csv": csv(rows)}))
    assert source.wnids == ["ant", "bee"]
    assert listed(source)["train"]["images/2.jpg"] == "!the table states no label"


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])
def test_numbers_that_are_ids(make_folder, listed, suffix):
    """A million classes for three labels would be wrong: the numbers are names."""
    rows = [(ROWS[0][0], "100000"), (ROWS[1][0], "999999"), (ROWS[2][0], "7")]
    objects = [{"path": path, "label": int(label)} for path, label in rows]
    text = {"csv": csv(rows), "json": json.dumps(objects), "jsonl": "\n".join(map(json.dumps, objects))}[suffix]
    source = open_source(make_folder({**IMAGES, f"labels.{suffix}": text}))
    assert source.wnids == ["100000", "7", "999999"]
    assert [listed(source)["train"][path] for path, _ in rows] == ["100000", "999999", "7"]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [("0 1000", 1001), ("0 999", 1000), ("0 1001", 2), ("3 9999999999", 2), ("1001 01001 1001.0", 1), ("5 20", 21)],
)
def test_class_indices_and_ids(labels, classes):
    assert len(classes_of(labels.split())[1]) == classes


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_the_id_0_is_a_name(make_folder, listed, suffix):
    objects = [{"id": number, "label": label} for number, (_, label) in enumerate(ROWS)]
    text = json.dumps(objects) if suffix == "json" else "\n".join(map(json.dumps, objects))
    assert listed(open_source(make_folder({**IMAGES, f"labels.{suffix}": text}))) == {"train": TRUTH}


@pytest.mark.parametrize(
    ("name", "path"), [("labels.csv", "img/a"), ("img/labels.csv", "a"), ("labels.csv", "a"), ("img/labels.csv", "./a")]
)
def test_an_ambiguous_name_has_a_row_with_the_cause(make_tree, listed, name, path):
    files = {"img/a.jpg": None, "img/a.png": None, "img/b.jpg": None}
    source = open_source(make_tree({**files, name: csv([(path, "ant"), (path.replace("a", "b"), "bee")])}))
    assert sorted(listed(source)["train"].values()) == ["!several images have this name", "bee"]


@pytest.mark.parametrize("top", ["/home/me/set/", "C:\\me\\", "c:/me/"])
def test_absolute_paths_of_images_at_the_top(make_folder, listed, top):
    files = {"0.jpg": None, "1.jpg": None}
    source = open_source(make_folder({**files, "labels.csv": csv([(f"{top}0.jpg", "ant"), (f"{top}1.jpg", "bee")])}))
    assert listed(source) == {"train": {"0.jpg": "ant", "1.jpg": "bee"}}
    rows = [("/a/0.jpg", "ant"), ("/b/0.jpg", "bee"), ("/a/1.jpg", "ant")]
    source = open_source(make_folder({**files, "labels.csv": csv(rows)}, "second"))
    assert "!another path of the table ends in the same image" in listed(source)["train"].values()


@pytest.mark.parametrize(
    ("header", "first"), [("path,label,label", "ant"), ("path,Label,label", "ant"), ("path,path,label", "x")]
)
def test_of_equal_columns_the_first_counts(make_folder, header, first):
    row = ("images/0.jpg", "ant", "x")
    assert open_source(make_folder({**IMAGES, "a.csv": csv([row], header)})).wnids == [first]


@pytest.mark.parametrize("column", ["split", "is_valid"])
def test_a_column_of_splits_that_is_not_read_is_noted(make_folder, said, column):
    rows = [(*row, str(number % 2)) for number, row in enumerate(ROWS)]
    source = open_source(make_folder({**IMAGES, "a.csv": csv(rows, f"path,label,{column}")}))
    assert source.splits == ("train",)
    assert any(f"the column {column} of a.csv is not read (0, 1)" in note for note in said(source))


@pytest.mark.parametrize(
    ("table", "folder"), [("training_labels.csv", "val"), ("val.csv", "test"), ("dev.csv", "train")]
)
def test_a_table_and_a_path_of_different_splits_are_refused(make_tree, listed, table, folder):
    files = {f"{folder}/0.jpg": None, f"{folder}/1.jpg": None}
    rows = [(f"{folder}/0.jpg", "ant"), (f"{folder}/1.jpg", "bee")]
    with pytest.raises(SourceError, match=rf"{table} is named for .* lists {folder}/0\.jpg, .*add a column split"):
        open_source(make_tree({**files, table: csv(rows)}))
    rows = [(*row, "test") for row in rows]
    assert list(listed(open_source(make_tree({**files, table: csv(rows, "path,label,split")}, "stated")))) == ["test"]


def test_a_table_that_swaps_the_class_folders(make_tree, listed):
    """Each folder has one label, but that of another folder: the table counts."""
    files = {f"train/{name}/{i}.jpg": None for name in ("ant", "bee", "cat") for i in (0, 1)}
    moved = {"ant": "bee", "bee": "cat", "cat": "ant"}
    table = csv([(path, moved[path.split("/")[1]]) for path in files])
    source = open_source(make_tree({**files, "labels.csv": table}))
    assert source.layout == "table"
    assert listed(source)["train"] == {path: moved[path.split("/")[1]] for path in files}


@pytest.mark.parametrize("name", ["metadata.jsonl", "images/metadata.ndjson"])
@pytest.mark.parametrize("line", ['{"path": "images/1.jpg", "label": "bee"', "[1]", "bee"])
def test_a_broken_line_of_json_is_named(make_folder, name, line):
    good = json.dumps({"path": "images/0.jpg", "label": "ant"})
    with pytest.raises(SourceError, match=f"{name}, line 2: is not"):
        open_source(make_folder({**IMAGES, name: f"{good}\n{line}\n{good}\n"}))
