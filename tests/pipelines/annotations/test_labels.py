"""Labels of validation images from label files, and ReaL labels."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from imgtool.cli import main
from imgtool.pipelines.annotations.real import read_real_labels
from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.sources import open_source
from imgtool.wordnet.errors import InputError


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
