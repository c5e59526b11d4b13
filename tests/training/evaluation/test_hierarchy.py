"""Training, validating and predicting with the hierarchy: losses by name, label maps, hierarchical metrics, ReaL."""

import json
from pathlib import Path

import pytest

from imgtool import wordnet
from imgtool.pipelines.dataset import Dataset
from imgtool.training.classifier import Classifier
from imgtool.wordnet import orders
from imgtool.wordnet.errors import CheckpointError, InputError

pytestmark = pytest.mark.numeric

SHORT = {"epochs": 2, "batch": 16, "imgsz": 32, "quiet": True}


@pytest.fixture(scope="module")
def trained(drawn_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "plain"
    Classifier("n").train(drawn_data, name=run, **SHORT)
    return run


@pytest.mark.parametrize("loss", ["soft", "hxe:alpha=0.2", "wordtree"])
def test_a_loss_by_name(drawn_data: Path, tmp_path: Path, drawn: Path, loss: str) -> None:
    """Trains, resumes, validates and predicts; the checkpoint stores its loss."""
    run = tmp_path / "run"
    results = Classifier("n").train(drawn_data, name=run, loss=loss, **SHORT)
    again = Classifier(run)
    assert again.loss == loss
    metrics = again.val(drawn_data)
    assert metrics.top1 == results.metrics.top1
    assert metrics.images == 20
    image = tmp_path / "a.png"
    from PIL import Image

    Image.new("RGB", (50, 40), (90, 120, 30)).save(image)
    (prediction,) = again.predict(image, topk=10)
    assert sum(prediction.probabilities) == pytest.approx(1, abs=1e-4)
    assert Classifier("n").train(name=run, resume=True, quiet=True).metrics.top1 == results.metrics.top1


@pytest.mark.parametrize("loss", ["nonsense", "hxe:alpha", "hxe:gamma=1", "soft:beta=-1"])
def test_a_wrong_loss_is_refused_before_a_run_is_made(drawn_data: Path, tmp_path: Path, loss: str) -> None:
    with pytest.raises(InputError):
        Classifier("n").train(drawn_data, name=tmp_path / "run", loss=loss, **SHORT)
    assert not (tmp_path / "run").exists()


def test_a_hierarchical_loss_needs_classes_of_wordnet(drawn_data: Path, tmp_path: Path) -> None:
    labelmap = wordnet.load(Dataset(drawn_data).wnids).labelmap({"animal": "animal.n.01"}, other="other")
    with pytest.raises(InputError, match="classes that are in WordNet"):
        Classifier("n").train(drawn_data, name=tmp_path / "run", loss="hxe", labelmap=labelmap, **SHORT)


def test_val_computes_hierarchical_metrics(trained: Path, drawn_data: Path) -> None:
    metrics = Classifier(trained).val(drawn_data)
    assert metrics.hierarchy is not None
    assert float(metrics.hierarchy["top1"]) == pytest.approx(metrics.top1)
    assert float(metrics.hierarchy["top5"]) == pytest.approx(metrics.top5)
    distance = float(metrics.hierarchy["hierarchical_distance@1"])
    severity = metrics.hierarchy["mistake_severity"]
    assert distance == pytest.approx(float(severity) * severity.count / metrics.images)
    assert json.dumps(metrics.to_dict())


def test_a_labelmap_in_training_and_in_validation(trained: Path, drawn_data: Path, tmp_path: Path) -> None:
    wnids = Dataset(drawn_data).wnids
    labelmap = wordnet.load(wnids).labelmap({"animal": "animal.n.01"}, other="other")
    labelmap.save(tmp_path / "map.json")
    run = tmp_path / "run"
    results = Classifier("n").train(drawn_data, name=run, labelmap=tmp_path / "map.json", **SHORT)
    two = Classifier(run)
    assert two.wnids == ["animal", "other"]
    assert two.val(drawn_data, labelmap=labelmap).top1 == results.metrics.top1
    assert Classifier("n").train(name=run, resume=True, quiet=True).epochs == 2

    plain = Classifier(trained)
    mapped, exact = plain.val(drawn_data, labelmap=labelmap), plain.val(drawn_data)
    assert mapped.images == exact.images == 20
    assert mapped.top1 >= exact.top1  # a correct class is in the correct target
    assert mapped.hierarchy is None
    with pytest.raises(CheckpointError, match="label map does not fit the model"):
        other = wordnet.load(wnids).labelmap({"a": "artifact.n.01", "b": "animal.n.01"})
        two.val(drawn_data, labelmap=other)


def test_real_labels_need_ilsvrc2012s_classes(trained: Path, drawn_data: Path, tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("[[1]]")
    with pytest.raises(InputError, match="ReaL labels need ILSVRC2012's 1000 classes"):
        Classifier(trained).val(drawn_data, real=tmp_path / "real.json")


def test_real_labels_follow_the_stored_order(mini: Path, tmp_path: Path) -> None:
    """ReaL labels that equal the ground truth are returned in the order of the manifest."""
    from imgtool.pipelines.prepare import prepare

    prepare(mini, tmp_path / "mini", workers=2)
    dataset = Dataset(tmp_path / "mini")
    assert dataset.wnids == orders.ilsvrc2012_wnids()
    from imgtool.training.evaluation.validation import real_labels, stored_keys

    rows = dataset.manifest("val").to_pylist()
    real: list[list[int]] = [[] for _ in rows]
    for row in rows:
        real[int(row["key"][-8:]) - 1] = [row["class_index"]]
    (tmp_path / "real.json").write_text(json.dumps(real))
    arguments = (dataset.wnids, stored_keys(dataset, "val"), tmp_path / "real.json", dataset.path)
    assert real_labels(*arguments) == [[row["class_index"]] for row in rows]
    (tmp_path / "real.json").write_text(json.dumps(real[:50]))
    with pytest.raises(InputError, match="has no labels for ILSVRC2012_val_"):
        real_labels(*arguments)
