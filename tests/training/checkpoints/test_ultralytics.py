"""Ultralytics' checkpoints: our model computes what theirs computes, with the classes in our order.

Most tests do not need Ultralytics: they pickle our modules under the class names of the published files.
"""

import io
import os
import sys
import tarfile
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from imgtool.pipelines import codec
from imgtool.training.checkpoints import checkpoint, ultralytics
from imgtool.training.checkpoints.content import KEYS
from imgtool.training.classifier import Classifier
from imgtool.training.models import yolov8
from imgtool.training.recipes import Recipe
from imgtool.wordnet import class_table
from imgtool.wordnet.errors import CheckpointError, InputError

pytestmark = pytest.mark.numeric

SIDE = 64
PLACES = {
    "Conv": "ultralytics.nn.modules.conv",
    "C2f": "ultralytics.nn.modules.block",
    "Bottleneck": "ultralytics.nn.modules.block",
    "Classify": "ultralytics.nn.modules.head",
    "ClassificationModel": "ultralytics.nn.tasks",
}
WNIDS = ["n01494475", "n01440764", "n01491361", "n01443537", "n01496331", "n01484850"]  # not in sorted order


@pytest.fixture
def images(mini: Path) -> Tensor:
    """float32 [2, 3, SIDE, SIDE]: real images."""
    crops = []
    with tarfile.open(mini / "ILSVRC2012_img_val.tar") as tar:
        for name in tar.getnames()[:2]:
            file = tar.extractfile(name)
            assert file is not None
            crops.append(torch.from_numpy(codec.center_crop(codec.decode(file.read()), SIDE)))
    return torch.stack(crops).permute(0, 3, 1, 2).float() / 255


def randomise(model: Any) -> Any:
    """Gives the model trained-like statistics and gains, and distinct logits, so that a wrong layer shows."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.get_buffer("running_mean"), std=0.2)
            nn.init.uniform_(module.get_buffer("running_var"), 0.5, 2)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.1)
            nn.init.normal_(module.bias, std=0.1)
    return model.eval()


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """theirs(classes, flat): a random n model that pickles like Ultralytics'; ``flat``: like their first versions'."""

    def make(names: list[str], flat: bool = False) -> Any:
        model: Any = randomise(yolov8.build("n", len(names), dropout=0.25))
        for module in list(model.modules()):
            kind = type(module).__name__
            if kind not in PLACES:
                continue
            place = "ultralytics.nn.modules" if flat and kind != "ClassificationModel" else PLACES[kind]
            if not hasattr(sys.modules.get(place), "made_here"):
                made: Any = types.ModuleType(place)
                made.made_here = True
                monkeypatch.setitem(sys.modules, place, made)
            if not hasattr(sys.modules[place], kind):
                setattr(sys.modules[place], kind, type(kind, (type(module),), {"__module__": place}))
            if kind == "Bottleneck":
                module.add = True
            module.__class__ = getattr(sys.modules[place], kind)
        model.names = dict(enumerate(names))
        model.yaml, model.save, model.stride, model.task = {"nc": len(names)}, [], torch.Tensor([1]), "classify"
        return model

    return make


def save(path: Path, model: nn.Module, key: str = "model", **more: Any) -> Path:
    """Saves in half precision, as Ultralytics do; the module then has the rounded weights in float32."""
    content = {"epoch": -1, "ema": None, "model": None, "optimizer": None, "train_args": {"imgsz": 192, "data": "x"}}
    torch.save(content | {key: model.half(), "version": "8.0.0", "date": "2023-01-01"} | more, path)
    model.float()
    return path


def logits(model: nn.Module, images: Tensor) -> Tensor:
    with torch.inference_mode():
        found = model.eval()(images)
    return found[1] if isinstance(found, tuple) else found  # theirs returns (probabilities, logits)


def close(found: Tensor, expected: Tensor) -> None:
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def in_order(names: list[str]) -> list[int]:
    return sorted(range(len(names)), key=names.__getitem__)


@pytest.mark.parametrize("key", ["model", "ema"])
@pytest.mark.parametrize("flat", [False, True])
def test_logits_classes_and_settings(
    theirs: Callable[..., Any], images: Tensor, tmp_path: Path, key: str, flat: bool
) -> None:
    model = theirs(WNIDS, flat)
    path = save(tmp_path / "oddly named.pt", model, key)
    subject = Classifier(path)
    close(logits(subject.model, images), logits(model, images)[:, in_order(WNIDS)])
    assert subject.wnids == sorted(WNIDS) and subject.names == class_table(WNIDS)["name"]
    assert (subject.size, subject.imgsz, subject.checkpoint) == ("n", 192, path)
    assert subject.model.get_submodule("model.9.drop").p == 0.25
    assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in subject.model.state_dict().values())


def test_predict_names_the_right_class(theirs: Callable[..., Any], images: Tensor, tmp_path: Path) -> None:
    model = theirs(WNIDS)
    weights = tmp_path / "runs" / "classify" / "weights"  # their run's folder
    weights.mkdir(parents=True)
    save(weights / "best.pt", model)
    subject = Classifier(tmp_path / "runs" / "classify")
    image = (images[0] * 255).byte().permute(1, 2, 0).numpy()
    best = logits(model, images)[0].softmax(0)
    found = subject.predict(image, topk=6, imgsz=SIDE)[0]
    assert found.wnids == [WNIDS[i] for i in best.argsort(descending=True)]
    assert found.probabilities == pytest.approx(best.sort(descending=True).values.tolist(), abs=1e-4)


@pytest.mark.parametrize("eps", [1e-3, 1e-5, 1e-6])
def test_the_epsilon_of_the_file_is_kept(
    theirs: Callable[..., Any], images: Tensor, tmp_path: Path, eps: float
) -> None:
    model = theirs(WNIDS)
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.eps = eps
        norm.get_buffer("running_var").mul_(1e-3)  # so that epsilon matters
        norm.weight.data.mul_(0.03)
    subject = Classifier(save(tmp_path / "a.pt", model))
    close(logits(subject.model, images), logits(model, images)[:, in_order(WNIDS)])
    close(logits(yolov8.fuse(subject.model), images), logits(subject.model, images))
    assert {m.eps for m in subject.model.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-5}


def test_a_fused_file(theirs: Callable[..., Any], images: Tensor, tmp_path: Path) -> None:
    model = theirs(WNIDS)
    expected = logits(model, images)[:, in_order(WNIDS)]
    convolutions: list[Any] = [module for module in model.modules() if isinstance(module, yolov8.Conv)]
    for module in convolutions:
        conv, norm = module.conv, module.bn
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        conv.weight.data.mul_(gain.view(-1, 1, 1, 1))
        conv.bias = nn.Parameter(norm.bias - norm.running_mean * gain)
        del module.bn
        module.forward = _Bound(module)
    path = tmp_path / "a.pt"
    torch.save({"model": model, "ema": None}, path)
    close(logits(Classifier(path).model, images), expected)


class _Bound:
    """Its pickle is that of a bound method: a call of getattr."""

    def __init__(self, owner: nn.Module) -> None:
        self.owner = owner

    def __reduce__(self) -> Any:
        return getattr, (self.owner, "forward_fuse")


def test_names_that_are_not_wnids(theirs: Callable[..., Any], images: Tensor, tmp_path: Path) -> None:
    names = ["zebra", "a fish", "tench", "tench"]
    model = theirs(names)
    subject = Classifier(save(tmp_path / "a.pt", model))
    assert subject.wnids == subject.names == ["a fish", "tench", "tench (3)", "zebra"]
    close(logits(subject.model, images), logits(model, images)[:, [1, 2, 3, 0]])


def test_imagenets_labels(theirs: Callable[..., Any], images: Tensor, tmp_path: Path) -> None:
    from imgtool import wordnet

    h = wordnet.load()
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0)).tolist()
    model = theirs([h.name(i).replace(" ", "_") for i in order])
    subject = Classifier(save(tmp_path / "a.pt", model, train_args={"imgsz": [224, 224]}))
    assert subject.wnids == h.wnids and subject.names == h.names and subject.imgsz == 224
    close(logits(subject.model, images)[:, order], logits(model, images))


def test_val_matches_their_classes(theirs: Callable[..., Any], memory: Any, tmp_path: Path) -> None:
    from imgtool.pipelines.codec.transform import to_float

    model = theirs(WNIDS)
    images, labels = to_float(memory.images["val"]), memory.labels["val"]
    right = logits(model, images).argmax(1) == torch.tensor([WNIDS.index(wnid) for wnid in memory.wnids])[labels]
    metrics = Classifier(save(tmp_path / "a.pt", model)).val(imgsz=32)
    assert metrics.top1 == pytest.approx(right.double().mean().item(), abs=1e-9)


def test_fine_tuning_starts_from_the_same_function(
    theirs: Callable[..., Any], memory: Any, toy_recipe: Recipe, tmp_path: Path, make_dataset: Any
) -> None:
    """Also with another epsilon than ours: our checkpoint has the weights as they were read."""
    model = theirs(WNIDS)
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.eps = 1e-3
    path = save(tmp_path / "a.pt", model)
    subject = Classifier(path)
    before = subject.val(imgsz=32)
    recipe = toy_recipe.override(epochs=1, lr=1e-30)
    result = subject.train(recipe=recipe, name="tuned", quiet=True)
    assert "initialised again" not in (result.run / "log.txt").read_text()
    tuned = Classifier(result.run).model.state_dict()
    original = Classifier(path).model.state_dict()
    torch.testing.assert_close(tuned["model.9.linear.weight"], original["model.9.linear.weight"])
    content = checkpoint.load(result.run / "weights" / "best.pt")
    checkpoint.save(tmp_path / "same.pt", {k: content[k] for k in KEYS} | {"ema": original})
    after = Classifier(tmp_path / "same.pt").val(imgsz=32)
    assert (after.top1, after.loss) == (before.top1, pytest.approx(before.loss, rel=1e-5))

    other = Classifier(save(tmp_path / "b.pt", theirs(["a", "b", "c"]))).train(recipe=recipe, name="other", quiet=True)
    assert "last layer is initialised again" in (other.run / "log.txt").read_text()
    assert Classifier(other.run).wnids == memory.wnids


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.model[0].conv.__setattr__("stride", (1, 1)), r"model\.0\.conv\.stride differs"),
        (lambda m: m.model[2].m[0].__setattr__("add", False), r"model\.2\.m\.0\.add differs"),
        (lambda m: m.model[1].__setattr__("act", nn.ReLU()), r"model\.1\.act is a torch.*ReLU; .* SiLU"),
        (lambda m: m.model[4].add_module("attention", nn.SiLU()), r"model\.4 has a module 'attention'"),
        (lambda m: m.model[4].m.__delitem__(1), r"model\.4\.cv2|model\.4\.m\.1"),
        (lambda m: m.model[0].__setattr__("conv", nn.Conv2d(3, 17, 3)), "its layers do not fit YOLOv8-cls"),
        (
            lambda m: m.model[9].__setattr__("linear", nn.Linear(7, 6)),
            r"model\.9\.linear\.weight is \[6, 7\]",
        ),
        (lambda m: m.__setattr__("names", {0: "a"}), "not name its 6 classes"),
        (lambda m: m.__setattr__("names", None), "not name its 6 classes"),
    ],
)
def test_other_architectures_are_refused(
    theirs: Callable[..., Any], tmp_path: Path, change: Callable[[Any], None], message: str
) -> None:
    model = theirs(WNIDS)
    change(model)
    with pytest.raises(CheckpointError, match=r"a\.pt: .*" + f"(?:{message})"):
        Classifier(save(tmp_path / "a.pt", model))


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")  # torch's old format keeps sources
def test_other_contents_are_refused(theirs: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    for content, message in (
        ({"model": theirs(WNIDS).model}, "its model is a torch.*Sequential; imgtool reads YOLOv8-cls"),
        ({"model": {"a": theirs(WNIDS)}}, "its model is a dict"),
        ({"nothing": theirs(WNIDS)}, "its model is a NoneType"),
        ([theirs(WNIDS)], "contains a list"),
    ):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=message):
            Classifier(path)
    torch.save({"model": theirs(WNIDS)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"a\.pt is refused: it has the format of torch before 1\.6"):
        Classifier(path)
    with pytest.raises(CheckpointError, match=r"cannot resume|holds no|no run"):
        Classifier(save(path, theirs(WNIDS))).train(resume=True)
    whole = save(path, theirs(WNIDS)).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"a\.pt .*damaged"):
        Classifier(path)


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


def test_a_malicious_file_does_not_run(
    theirs: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = theirs(WNIDS)
    model.criterion = Evil()
    with pytest.raises(CheckpointError, match=r"a\.pt is refused: it calls for '(posix|nt)\.system'"):
        Classifier(save(Path("a.pt"), model))
    assert not Path("pwned").exists()


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_mutations_are_read_or_refused(theirs: Callable[..., Any], tmp_path: Path, data: st.DataObject) -> None:
    """Mutates bytes of the pickle, mostly in its short strings and numbers."""
    whole, path = tmp_path / "whole.pt", tmp_path / "a.pt"
    if not whole.exists():
        save(whole, theirs(WNIDS))
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            content = bytearray(source.read(name))
            if name.endswith("data.pkl"):
                places = [place for place, byte in enumerate(content) if byte in b"KX}])(q"]
                for _ in range(data.draw(st.integers(1, 3))):
                    content[data.draw(st.sampled_from(places)) + 1] = data.draw(st.integers(0, 255))
            target.writestr(name, bytes(content))
    try:
        ultralytics.load(path)
    except CheckpointError as error:
        assert "\n" not in str(error)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Ultralytics' own model class, kept from using the network and the home directory."""
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path_factory.getbasetemp()))
    monkeypatch.setenv("YOLO_OFFLINE", "1")
    monkeypatch.setenv("YOLO_AUTOINSTALL", "0")
    monkeypatch.setenv("YOLO_VERBOSE", "0")
    monkeypatch.setattr(Image, "open", Image.open)  # the import replaces it for good
    pytest.importorskip("ultralytics")
    from ultralytics.nn.tasks import ClassificationModel

    return ClassificationModel


@pytest.mark.parametrize("size", yolov8.SCALES)
def test_their_model_of_each_size(size: str, library: Any, images: Tensor, tmp_path: Path) -> None:
    model = randomise(library(f"yolov8{size}-cls.yaml", nc=6, verbose=False))
    model.names = dict(enumerate(WNIDS))
    path = save(tmp_path / "a.pt", model, "ema" if size == "s" else "model")
    subject = Classifier(path)
    assert subject.size == size and subject.wnids == sorted(WNIDS)
    close(logits(subject.model, images), logits(model, images)[:, in_order(WNIDS)])


def test_their_own_fused_model(library: Any, images: Tensor, tmp_path: Path) -> None:
    model = randomise(library("yolov8n-cls.yaml", nc=6, verbose=False))
    expected = logits(model, images)
    torch.save({"model": model.fuse(verbose=False)}, tmp_path / "a.pt")
    close(logits(Classifier(tmp_path / "a.pt").model, images), expected)


def test_their_model_loads_our_export(library: Any, images: Tensor, tmp_path: Path) -> None:
    import json

    original = randomise(library("yolov8s-cls.yaml", nc=6, verbose=False))
    original.names = dict(enumerate(sorted(WNIDS)))
    subject = Classifier(save(tmp_path / "a.pt", original))
    written = subject.export("ultralytics-state", tmp_path / "out.pt").files
    assert written == [tmp_path / "out.pt", tmp_path / "out.json"]
    about = json.loads(written[1].read_text())
    model = library(about["yaml"], nc=about["nc"], verbose=False)
    model.load_state_dict(torch.load(written[0], weights_only=True), strict=True)
    close(logits(model, images), logits(subject.model, images))
    close(logits(model, images), logits(original, images))
    assert about["wnids"] == sorted(WNIDS) and about["names"] == subject.names and about["imgsz"] == 192


def test_export_says_what_is_wrong(theirs: Callable[..., Any], tmp_path: Path) -> None:
    path = save(tmp_path / "a.pt", theirs(WNIDS))
    subject = Classifier(path)
    for classifier, form, out, kind, message in (
        (subject, "onyx", "b.pt", InputError, r"unknown format 'onyx': choose one of onnx, .*, ultralytics-state"),
        (subject, "ultralytics-state", "a.pt", InputError, r"a\.pt is the checkpoint itself"),
        (subject, "ultralytics-state", "b.json", InputError, r"b\.json.* ends in \.pt"),
        (subject, "ultralytics-state", "none/b.pt", CheckpointError, r"cannot write .*none/b\.pt"),
        (Classifier("n"), "ultralytics-state", "b.pt", CheckpointError, "has no trained weights"),
    ):
        with pytest.raises(kind, match=message):
            classifier.export(form, tmp_path / out)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.pt"]
    assert Classifier(path).wnids == sorted(WNIDS)


def test_the_commands(theirs: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from imgtool.cli import main

    monkeypatch.chdir(tmp_path)
    save(Path("yolov8n-cls.pt"), theirs(WNIDS))
    buffer = io.BytesIO()
    Image.new("RGB", (50, 40), (90, 120, 30)).save(buffer, "PNG")
    Path("a.png").write_bytes(buffer.getvalue())
    shown = CliRunner().invoke(main, ["info", "yolov8n-cls.pt"]).output
    assert "size         n" in shown and "classes      6" in shown
    shown = CliRunner().invoke(main, ["predict", "a.png", "--weights", "yolov8n-cls.pt", "--imgsz", "64"]).output
    assert "n01440764  tench" in shown
    command = ["export", "yolov8n-cls.pt", "--format", "ultralytics-state", "--out", "state.pt"]
    assert CliRunner().invoke(main, command).output.split()[::3] == ["state.pt", "state.json"]
