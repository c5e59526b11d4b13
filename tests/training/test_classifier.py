"""`Classifier`: the files of a run, validation by wnid, prediction on every kind of source."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from imgtool.training import classifier, execute, job
from imgtool.training.checkpoints import checkpoint
from imgtool.training.checkpoints.content import KEYS
from imgtool.training.classifier import Classifier, TrainResults
from imgtool.training.recipes import Recipe
from imgtool.wordnet.errors import CheckpointError, DatasetError, ImageError, InputError


@pytest.fixture
def trained(memory: Any, toy_recipe: Recipe) -> TrainResults:
    return Classifier("n").train(recipe=toy_recipe.override(epochs=1), name="trained", quiet=True)


@pytest.fixture
def draw_image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def test_a_run_has_everything_to_repeat_it(trained: TrainResults, toy_recipe: Recipe, memory: Any) -> None:
    run = trained.run
    names = sorted(path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file())
    weights = ["weights/best.pt", "weights/last-1.pt", "weights/last.pt"]
    assert names == ["log.txt", "results.csv", "run.json", *(f"train_batch{i}.jpg" for i in range(3)), *weights]
    settings = json.loads((run / "run.json").read_text())
    assert settings["recipe"] == toy_recipe.override(epochs=1).to_dict()
    assert settings["size"] == "n" and settings["seed"] == 0 and settings["fingerprint"] == memory.fingerprint
    assert settings["argv"] == sys.argv and settings["device"].startswith("cpu")
    assert set(settings["versions"]) == {"imgtool", "python", "torch"}
    assert checkpoint.load(run / "weights" / "best.pt")["resume"] is None
    assert (run / "weights" / "best.pt").stat().st_size < 0.5 * (run / "weights" / "last.pt").stat().st_size


def test_training_loads_the_best_model(memory: Any, toy_recipe: Recipe) -> None:
    subject = Classifier("n")
    epochs: list[float] = []
    result = subject.train(
        recipe=toy_recipe, epochs=3, name="x", quiet=True, on_epoch=lambda _, metrics: epochs.append(metrics.top1)
    )
    assert result.metrics.top1 == max(epochs) and len(epochs) == 3 and result.epochs == 3
    metrics = subject.val(batch=50)
    assert metrics.top1 == pytest.approx(
        result.metrics.top1, abs=0.011
    )  # fused: equal logits may be ranked differently
    assert metrics.loss == pytest.approx(result.metrics.loss, rel=1e-3)
    assert Classifier(result.run).val().to_dict()["top5"] == metrics.top5
    assert subject.names == memory.names and subject.wnids == memory.wnids


def test_a_small_data_set_gets_a_small_batch(memory: Any, toy_recipe: Recipe) -> None:
    run = Classifier("n").train(epochs=1, imgsz=32, quiet=True).run
    assert run == Path("runs/train")
    assert json.loads((run / "run.json").read_text())["recipe"]["batch"] == 32
    assert "batch 32 instead of 1024" in (run / "log.txt").read_text()


def test_a_data_set_without_val(memory: Any, toy_recipe: Recipe) -> None:
    for held in (memory.images, memory.labels):
        held["minival"] = held.pop("val")[:64]
    memory.splits = ("train", "minival")
    memory.num_unlabelled = lambda split: 0
    options: dict[str, Any] = {"recipe": toy_recipe.override(epochs=1), "quiet": True}
    with pytest.raises(DatasetError, match=r"no split 'val'.*--val-fraction 0.1, or name another split.*--val-split"):
        Classifier("n").train(**options)
    result = Classifier("n").train(**options, val_split="minival", name="x")
    assert result.metrics.images == 64
    assert json.loads((result.run / "run.json").read_text())["val_split"] == "minival"
    with pytest.raises(InputError, match="val_split=train: the run was started with val_split=minival"):
        Classifier("n").train(name="x", resume=True, val_split="train", quiet=True)
    assert Classifier("n").train(name="x", resume=True, quiet=True).metrics.images == 64
    memory.num_unlabelled = lambda split: 5
    with pytest.raises(DatasetError, match="5 images of the split 'minival' of memory have no label"):
        Classifier("n").train(**options, val_split="minival")


def test_loader_gets_the_recipe(memory: Any, toy_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    class Stop(Exception):
        pass

    def open_loader(dataset: Any, split: str, **options: Any) -> Any:
        asked.update(options, split=split, dataset=dataset)
        raise Stop

    monkeypatch.setattr(execute, "open_loader", open_loader)
    recipe = toy_recipe.override(crop_scale=0.25, hflip=0.0)
    with pytest.raises(Stop):
        Classifier("n").train(recipe=recipe, workers=3, seed=7, device="cpu", backend="native", name="asked")
    assert asked == {
        "dataset": memory,
        "split": "train",
        "batch_size": 32,
        "image_size": 32,
        "scale": (0.25, 1.0),
        "hflip": 0.0,
        "drop_last": True,
        "backend": "native",
        "device": "cpu",
        "seed": 7,
        "num_workers": 3,
        "order": "random",
        "on_error": "raise",
        "rank": 0,
        "world_size": 1,
    }
    assert not Path("runs").exists()  # a failure before training creates no run directory


def test_an_untrained_classifier_cannot_validate_or_predict(memory: Any, draw_image: np.ndarray) -> None:
    for call in (lambda: Classifier("n").predict(draw_image), lambda: Classifier("n").val()):
        with pytest.raises(CheckpointError, match="has no trained weights"):
            call()


def test_no_such_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"runs/none is neither a size \(n, s, m, l, x\) nor a checkpoint"):
        Classifier("runs/none")


def test_weights_of_another_shape(trained: TrainResults) -> None:
    content = checkpoint.load(trained.run / "weights" / "best.pt")
    checkpoint.save(Path("odd.pt"), {key: content[key] for key in KEYS} | {"size": "s"})
    with pytest.raises(CheckpointError, match=r"odd\.pt: the weights do not fit the network s"):
        Classifier("odd.pt")


def test_classes_are_matched_by_wnid(trained: TrainResults, memory: Any) -> None:
    subject = Classifier(trained.run)
    plain = subject.val()
    order = [3, 1, 5, 0, 2, 4]
    subject.trained.wnids = [subject.wnids[i] for i in order]
    linear = subject.model.get_submodule("model.9.linear")
    assert isinstance(linear, torch.nn.Linear)
    linear.weight.data, linear.bias.data = linear.weight.data[order], linear.bias.data[order]
    permuted = subject.val()
    assert (permuted.top1, permuted.top5) == (plain.top1, plain.top5)
    assert permuted.loss == pytest.approx(plain.loss, rel=1e-5)
    subject.wnids[0] = "n02084071"
    with pytest.raises(CheckpointError, match=r"1 only in the data set .*n01491361.*1 only in the checkpoint .*n020"):
        subject.val()


def test_unknown_split_and_empty_split(trained: TrainResults, memory: Any) -> None:
    with pytest.raises(DatasetError, match="no split 'test', only train, val"):
        Classifier(trained.run).val(split="test")
    memory.labels["val"] = memory.labels["val"][:0]
    with pytest.raises(DatasetError, match="split 'val' of memory is empty"):
        Classifier("n").train(quiet=True)


def test_fine_tuning_keeps_the_weights_and_logs_a_new_last_layer(
    trained: TrainResults, memory: Any, make_dataset: Any, toy_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = toy_recipe.override(epochs=1, lr=1e-30)
    before = Classifier(trained.run).model.state_dict()
    same = Classifier(trained.run).train(recipe=frozen, name="same", quiet=True)
    after = Classifier(same.run).model.state_dict()
    torch.testing.assert_close(after["model.9.linear.weight"], before["model.9.linear.weight"])
    assert "initialised again" not in (same.run / "log.txt").read_text()

    fewer = make_dataset(num_classes=3)
    monkeypatch.setattr(job, "Dataset", lambda _path, _labelmap=None: fewer)
    other = Classifier(trained.run).train(recipe=frozen, name="other", quiet=True)
    after = Classifier(other.run).model.state_dict()
    torch.testing.assert_close(after["model.4.cv1.conv.weight"], before["model.4.cv1.conv.weight"])
    assert after["model.9.linear.weight"].shape[0] == 3
    assert "last layer is initialised again" in (other.run / "log.txt").read_text()


def test_every_kind_of_source_gives_the_same(trained: TrainResults, draw_image: np.ndarray) -> None:
    folder = Path("images/deeper")
    folder.mkdir(parents=True)
    image = Image.fromarray(draw_image)
    image.save(folder / "b.png")
    image.save("images/a.PNG")
    Path("images/notes.txt").write_text("not an image")
    subject = Classifier(trained.run)
    found = subject.predict(["images", str(folder / "b.png"), image, draw_image], topk=3)
    assert [p.path for p in found] == ["images/a.PNG", "images/deeper/b.png", "images/deeper/b.png", None, None]
    assert all(p.indices == found[0].indices for p in found)
    first = found[0]
    assert len(first.indices) == 3 and first.probabilities == sorted(first.probabilities, reverse=True)
    assert first.wnids == [subject.wnids[i] for i in first.indices]
    assert first.names == [subject.names[i] for i in first.indices]
    everything = subject.predict(draw_image, topk=99)[0]
    assert len(everything.indices) == 6 and sum(everything.probabilities) == pytest.approx(1, abs=1e-5)
    assert json.loads(json.dumps(first.to_dict()))["path"] == "images/a.PNG"


def test_prediction_goes_through_the_validation_transform(
    trained: TrainResults, draw_image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A square image of the model's size is not resized or cropped: the logits are those of its pixels."""
    square = np.ascontiguousarray(draw_image[:32, :32])
    subject = Classifier(trained.run)
    with torch.no_grad():
        expected = subject.model(torch.from_numpy(square).permute(2, 0, 1)[None] / 255).softmax(1)[0]
    prediction = subject.predict(square, topk=6)[0]
    torch.testing.assert_close(torch.tensor(prediction.probabilities), expected[prediction.indices])


def test_predict_names_the_file_that_it_cannot_read(trained: TrainResults, draw_image: np.ndarray) -> None:
    subject = Classifier(trained.run)
    Path("broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    Path("empty.png").touch()
    for name in ("broken.jpg", "empty.png"):
        with pytest.raises(ImageError, match=name):
            subject.predict(name)
    with pytest.raises(InputError, match=r"there is no image nowhere\.jpg"):
        subject.predict("nowhere.jpg")
    Path("bare").mkdir()
    with pytest.raises(InputError, match="there is no image in bare"):
        subject.predict("bare")
    for wrong in (draw_image.astype(np.float32), draw_image[..., 0], draw_image[:, :0]):
        with pytest.raises(InputError, match=r"must be uint8 \[H, W, 3\]"):
            subject.predict(wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="cannot predict on BytesIO"):
        subject.predict(io.BytesIO())  # type: ignore[arg-type]


def test_device_names() -> None:
    assert classifier.resolve_device("cpu") == torch.device("cpu")
    assert classifier.resolve_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    for wrong in ("gpu", "99", "cuda:99"):
        with pytest.raises(InputError, match=rf"device .?{wrong}"):
            classifier.resolve_device(wrong)


def test_too_few_values_for_batch_norm(memory: Any, toy_recipe: Recipe) -> None:
    small = {"recipe": toy_recipe.override(epochs=1), "imgsz": 32, "quiet": True}
    with pytest.raises(InputError, match=r"one image of 32 x 32 pixels per micro-batch is too little for batch norm"):
        Classifier("n").train(**small, batch=1)
    memory.images["train"], memory.labels["train"] = memory.images["train"][:1], memory.labels["train"][:1]
    with pytest.raises(DatasetError, match="memory: train has only one image; training needs at least 2"):
        Classifier("n").train(**small)
    memory.images["train"], memory.labels["train"] = memory.images["val"][:2], memory.labels["val"][:2]
    assert Classifier("n").train(**small).epochs == 1
