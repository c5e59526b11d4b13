"""Labels of validation images from label files, and ReaL labels."""

from __future__ import annotations

import codecs
import contextlib
import json

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from imgtool.cli import main
from imgtool.pipelines.annotations.real import read_real_labels
from imgtool.pipelines.annotations.val_labels import read_ground_truth, read_solution
from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.sources import open_source
from imgtool.wordnet.errors import InputError, SourceError


@pytest.mark.parametrize("labels", ["ILSVRC2012_validation_ground_truth.txt", "LOC_val_solution.csv"])
def test_validation_labels_without_a_devkit(archives, labels, facts):
    truth = {record.key: record.wnids for record in open_source(archives).records("val")}
    ids = json.loads((facts / "ilsvrc2012_id_by_wnid.json").read_text())
    (archives / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    if labels.endswith("txt"):
        (archives / labels).write_text("".join(f"{ids[truth[key][0]]}\n" for key in sorted(truth)))
    else:
        lines = [f"{key},{wnid} 1 2 3 4 \n" for key, (wnid,) in truth.items()]
        (archives / labels).write_text("ImageId,PredictionString\n" + "".join(lines))
    source = open_source(archives)
    assert {record.key: record.wnids for record in source.records("val")} == truth
    assert len(source.wnids) == 1000


def test_real_labels_are_kept(archives, facts, tmp_path):
    real = json.loads((facts / "real.json").read_text())
    wnids = (facts / "ilsvrc2012_wnids.txt").read_text().split()
    labels = read_real_labels(facts / "real.json")
    assert len(labels) == 50_000 - 3_163
    result = CliRunner().invoke(
        main,
        ["prepare", "--src", str(archives), "--out", str(tmp_path / "out"), "--labels", str(facts / "real.json")],
    )
    assert result.exit_code == 0, result.output
    own = {record.key: record.wnids[0] for record in open_source(archives).records("val")}
    for row in pq.read_table(tmp_path / "out/val.parquet").to_pylist():
        expected = [wnids[i] for i in real[int(row["key"][-8:]) - 1]]
        assert row["wnids"] == [own[row["key"]], *(wnid for wnid in expected if wnid != own[row["key"]])]
    assert Dataset(tmp_path / "out").info["settings"]["real"]
    again = CliRunner().invoke(main, ["prepare", "--src", str(archives), "--out", str(tmp_path / "out")])
    assert again.exit_code == 2 and "other ReaL labels" in again.output


@pytest.mark.parametrize("content", ["{}", "[[1], 2]", "[[1000]]", "[[true]]", "no json", None])
def test_other_files_are_refused_as_real_labels(tmp_path, content):
    if content is not None:
        (tmp_path / "real.json").write_text(content)
    with pytest.raises(InputError, match=r"real\.json"):
        read_real_labels(tmp_path / "real.json")


ENCODINGS = [("utf-8", b""), ("utf-8-sig", b""), ("utf-16-le", codecs.BOM_UTF16_LE), ("utf-16-be", codecs.BOM_UTF16_BE)]


@pytest.mark.parametrize(("encoding", "bom"), ENCODINGS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_label_files_of_any_encoding_and_line_end(archives, facts, tmp_path, encoding, bom, end):
    """With byte order marks, blank lines, quotes and spaces, as spreadsheets and editors write them."""
    truth = {record.key: record.wnids for record in open_source(archives).records("val")}
    ids = json.loads((facts / "ilsvrc2012_id_by_wnid.json").read_text())
    (archives / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    lines = [f' "{key}", "{wnid} 1 2 3 4 "' for key, (wnid,) in truth.items()]
    tables = {
        "LOC_val_solution.csv": ["ImageId, PredictionString", "", *lines, ",", "", ""],
        "ILSVRC2012_validation_ground_truth.txt": [*(str(ids[truth[key][0]]) for key in sorted(truth)), "", ""],
    }
    for name, content in tables.items():
        (archives / name).write_bytes(bom + end.join(content).encode(encoding))
        source = open_source(archives)
        assert {record.key: record.wnids for record in source.records("val")} == truth
        (archives / name).unlink()
    real = bom + end.join(["[[1],", "[2, 3]]"]).encode(encoding)
    (tmp_path / "real.json").write_bytes(real)
    assert [len(wnids) for wnids in read_real_labels(tmp_path / "real.json").values()] == [1, 2]


@given(st.text(alphabet='ImageId,PrdctonSrg"n01440764 1234-\n\r\0;\ufeff'))
def test_any_text_is_a_table_or_refused(text):
    for table in (text, f"ImageId,PredictionString\n{text}"):
        with contextlib.suppress(SourceError):
            assert all(key and label.wnid for key, label in read_solution(table, "table").items())
    with contextlib.suppress(SourceError):
        read_ground_truth(text, "list")
