"""ONNX models that another program wrote: they are opened by their metadata and shapes, or rejected."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from imgtool.pipelines.codec import center_crop
from imgtool.pipelines.dataset import Dataset
from imgtool.training.classifier import Classifier
from imgtool.training.export.images import synthetic_images
from imgtool.training.runtimes import onnx as ours
from imgtool.training.runtimes.metadata import FLOAT_INPUT, PROBABILITIES, ModelMetadata
from imgtool.training.runtimes.runtime import InputSpec, Runtime
from imgtool.wordnet.errors import CheckpointError

pytestmark = pytest.mark.numeric


def make_onnx(path: Path, inputs: list[Any], outputs: list[Any], nodes: list[Any], constants: list[Any]) -> Path:
    import onnx

    graph = onnx.helper.make_graph(nodes, "g", inputs, outputs, constants)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return path


def linear_model(path: Path, classes: int = 7, softmax: bool = True, metadata: dict[str, str] | None = None) -> Path:
    """Writes a classifier as another program may do: mean colour, linear, softmax."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = np.random.default_rng(0).normal(size=(3, classes)).astype(np.float32) * 5
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["l"]),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["l"], ["y"], axis=1))
    make_onnx(
        path,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("y" if softmax else "l", TensorProto.FLOAT, ["n", None])],
        nodes,
        [numpy_helper.from_array(weight, "w")],
    )
    if metadata:
        model = onnx.load(path)
        onnx.helper.set_model_props(model, metadata)
        onnx.save(model, path)
    return path


@pytest.mark.parametrize("softmax", [True, False])
def test_a_foreign_model_without_names_predicts_by_index(softmax: bool, tmp_path: Path) -> None:
    subject = Classifier(linear_model(tmp_path / "f.onnx", softmax=softmax))
    assert subject.names == [str(index) for index in range(7)]
    (found,) = subject.predict(synthetic_images(1, 300), topk=7)
    assert sum(found.probabilities) == pytest.approx(1, abs=1e-5)
    assert found.names == [str(index) for index in found.indices] and set(found.wnids) == {""}
    weight = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32) * 5
    colour = center_crop(synthetic_images(1, 300)[0], 224).reshape(-1, 3).mean(0) / 255
    expected = torch.softmax(torch.from_numpy(colour @ weight), 0)
    assert found.probabilities == pytest.approx(expected[found.indices].tolist(), abs=1e-4)


def test_a_foreign_models_names_are_read(tmp_path: Path, drawn_data: Path) -> None:
    named = {"names": str(dict(enumerate("abcdefg"))), "imgsz": "[96, 96]"}
    subject = Classifier(linear_model(tmp_path / "f.onnx", metadata=named))
    assert subject.names == list("abcdefg") and subject.imgsz == 96
    wnids = Dataset(drawn_data).wnids
    other = linear_model(tmp_path / "w.onnx", len(wnids), metadata={"names": str(dict(enumerate(wnids)))})
    assert Classifier(other).val(drawn_data).images == 20
    with pytest.raises(CheckpointError, match="only in the data set"):
        Classifier(linear_model(tmp_path / "g.onnx")).val(drawn_data)
    wrong = linear_model(tmp_path / "h.onnx", metadata={"names": "{0: 'a'}"})
    with pytest.raises(CheckpointError, match=r"h\.onnx: .*metadata name 1 classes.* 7 outputs"):
        Classifier(wrong)


def test_models_that_are_not_classifiers_are_rejected(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    def model(shape: list[Any], kind: int = TensorProto.FLOAT) -> Path:
        return make_onnx(
            tmp_path / "a.onnx",
            [helper.make_tensor_value_info("x", kind, shape)],
            [helper.make_tensor_value_info("y", kind, shape)],
            [helper.make_node("Identity", ["x"], ["y"])],
            [],
        )

    for shape, kind, message in (
        (["n", 3], TensorProto.FLOAT, "not a classifier of RGB images"),
        (["n", 1, 28, 28], TensorProto.FLOAT, "not a classifier of RGB images"),
        (["n", 3, 32, 32], TensorProto.INT64, "not a classifier of RGB images"),
        (["n", 3, 32, 32], TensorProto.FLOAT, r"not a classifier: .*\[1, 3, 32, 32\]"),
    ):
        with pytest.raises(CheckpointError, match=message):
            Classifier(model(shape, kind))


def test_ultralytics_own_export(tmp_path: Path, draw_image: Callable[..., np.ndarray]) -> None:
    """Their ONNX export predicts here what their model predicts."""
    ultralytics = pytest.importorskip("ultralytics")
    model = ultralytics.YOLO("yolov8n-cls.yaml")
    torch.manual_seed(0)
    for module in model.model.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=1)
    model.model.names = {index: f"thing {index}" for index in range(1000)}
    model.model.eval()
    model.ckpt_path = str(tmp_path / "theirs.pt")
    model.model.pt_path = tmp_path / "theirs.pt"
    path = Path(model.export(format="onnx", imgsz=64, simplify=False, verbose=False))
    subject = Classifier(path)
    assert subject.imgsz == 64 and subject.names[3] == "thing 3"
    pixels = draw_image(64, 64, 2)
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        expected: Tensor = model.model(images)[0][0]
    (found,) = subject.predict(pixels, topk=1000)
    assert found.probabilities[0] == pytest.approx(float(expected.max()), abs=1e-4)
    assert found.indices[0] == int(expected.argmax())


def test_a_foreign_model_gets_exact_int8_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of other programs may have 8 bits, imgtool's have 7."""
    opened = []
    open_session = ours.open_session
    monkeypatch.setattr(
        ours, "open_session", lambda *args, **kw: opened.append(open_session(*args, **kw)) or opened[-1]
    )
    Classifier(linear_model(tmp_path / "a.onnx"))
    assert opened[-1].get_session_options().get_session_config_entry("session.x64quantprecision") == "1"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(["imgtool", "names", "imgsz", "wnids", "output"]), st.text(max_size=40)))
def test_any_metadata_are_read_or_rejected(stored: dict[str, str]) -> None:
    try:
        ModelMetadata.from_strings(stored).with_outputs(3)
    except CheckpointError as error:
        assert "metadata" in str(error)


def test_a_probability_of_zero_has_a_finite_loss() -> None:
    metadata = ModelMetadata("n", 32, ["a", "b"], ["a", "b"], FLOAT_INPUT, PROBABILITIES)
    certain = Runtime(
        lambda images: torch.tensor([[1.0, 0.0]]).expand(len(images), 2),
        metadata,
        InputSpec(torch.float32, (None, 3, 32, 32)),
        torch.device("cpu"),
        2,
    )
    logits = certain(torch.zeros(3, 3, 32, 32, dtype=torch.uint8))
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([1, 1, 0]))
    assert torch.isfinite(loss) and float(loss) > 50
