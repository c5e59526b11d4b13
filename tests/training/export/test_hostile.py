"""Exported models from strangers: metadata of any content are read or refused with a CheckpointError."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imgtool.training.runtimes import readers
from imgtool.training.runtimes.metadata import FLOAT_INPUT, ModelMetadata, parse_json
from imgtool.training.runtimes.tensorrt import split_file
from imgtool.wordnet.errors import CheckpointError

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
OURS = ModelMetadata("n", 32, ["a", "b", "c"], ["a", "b", "c"], FLOAT_INPUT, "logits", imgtool="1.0").to_strings()
VALUES = ["-1", "0", '"abc"', "1e999", "Infinity", "NaN", "1000000000", "true", "null", "[]", "{}", "[1]", "{", ""]
VALUES += ['"32"', "32.0", "[[" * 5000, "9" * 5000, '["a"]', '{"a": 1}', "\ud800"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of an ONNX classifier with our metadata."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(np.ones((3, 3), np.float32), "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(made, OURS)
    return bytes(made.SerializeToString()) if onnx else b""


def opened(path: Path) -> bool:
    """Whether the model is opened and runs. Fails for an error that is not a CheckpointError in one line."""
    try:
        runtime = readers.read(path, "cpu", 1)
        assert runtime(torch.zeros(2, 3, runtime.imgsz, runtime.imgsz, dtype=torch.uint8)).shape[0] == 2
    except CheckpointError as error:
        assert "\n" not in str(error) and str(path) in str(error)
        return False
    return True


@pytest.mark.parametrize("key", sorted(OURS))
def test_any_value_of_our_metadata(key: str) -> None:
    refused = 0
    for value in VALUES:
        try:
            ModelMetadata.from_strings(OURS | {key: value}).with_outputs(3)
        except CheckpointError as error:
            assert key in str(error) or "names" in str(error)
            refused += 1
    assert refused >= (4 if key == "transform" else 12)
    if key != "imgtool":
        with pytest.raises(CheckpointError, match=key):
            ModelMetadata.from_strings({name: value for name, value in OURS.items() if name != key})


def test_lists_of_another_length() -> None:
    with pytest.raises(CheckpointError, match="names"):
        ModelMetadata.from_strings(OURS | {"names": '["a"]'})
    with pytest.raises(CheckpointError, match="3 classes, but the model has 2 outputs"):
        ModelMetadata.from_strings(OURS).with_outputs(2)


@pytest.mark.parametrize("side", ["-1", "0", "'abc'", "1e999", "10**9", "1000000000", "[[]]", "True", "{", "[-5, 3]"])
def test_image_sizes_of_other_programs(side: str) -> None:
    assert ModelMetadata.from_strings({"imgsz": side, "names": "['a']"}).imgsz is None


@pytest.mark.parametrize("names", ["{1: 'a'}", "[[1]]", "{0: {}}", "{[]: 1}", "'a'", "-" * 100_000, "(" * 100_000, "1"])
def test_names_of_other_programs(names: str) -> None:
    assert ModelMetadata.from_strings({"names": names}).names == []


def test_metadata_that_are_not_utf8(model: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(model)
    assert opened(path)
    refused = 0
    for old in (b"imgsz", b'"logits"', b"wnids"):
        path.write_bytes(model.replace(old, b"\xff" * len(old)))
        refused += not opened(path)
    assert refused == 3
    for name in (b"x", b"y"):
        path.write_bytes(model.replace(b"\x01" + name, b"\x01\xff"))
        opened(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(sorted(OURS)), st.sampled_from(VALUES) | st.text(max_size=20)))
def test_mutated_metadata(changes: dict[str, str]) -> None:
    try:
        ModelMetadata.from_strings(OURS | changes).with_outputs(3)
    except CheckpointError as error:
        assert "metadata" in str(error)


TORCHSCRIPT = """
import json, sys, torch
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 3))
module = torch.jit.trace(net, torch.zeros(2, 3, 32, 32))
for path, metadata in zip(sys.argv[1::2], sys.argv[2::2]):
    torch.jit.save(module, path, _extra_files={"imgtool.json": bytes.fromhex(metadata)})
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_metadata(tmp_path: Path) -> None:
    valid = json.dumps(OURS).encode()
    contents = [
        valid,
        b"\xff\xfe",
        b"[]",
        b'"a"',
        b"[" * 20_000,
        b"{",
        b"null",
        json.dumps(OURS | {"imgsz": "-1"}).encode(),
    ]
    paths = [tmp_path / f"{n}.torchscript" for n in range(len(contents))]
    arguments = [part for path, content in zip(paths, contents, strict=True) for part in (str(path), content.hex())]
    subprocess.run([sys.executable, "-W", "ignore", "-c", TORCHSCRIPT, *arguments], check=True)
    assert [opened(path) for path in paths] == [True, *[False] * (len(paths) - 1)]


def test_a_torch_export_file_is_never_opened(tmp_path: Path) -> None:
    (tmp_path / "a.pt2").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="can run any code"):
        readers.read(tmp_path / "a.pt2")


@pytest.mark.parametrize(
    "content", [b"", b"\x02\0\0\0{", b"\x02\0\0\0{]", b"\xff\xff\xff\xff{}", b"\x05\0\0\0{\xff\xff\xff}x"]
)
def test_engine_metadata(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.engine"
    path.write_bytes(content)
    with contextlib.suppress(CheckpointError):
        split_file(path)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_mutated_files(data: st.DataObject) -> None:
    """Files that no parser accepts: a name that is no suffix of a model's content, or bytes at random."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{data.draw(st.sampled_from(['.onnx', '.torchscript', '.pt2']))}"
        path.write_bytes(data.draw(st.binary(max_size=60)))
        opened(path)


@pytest.mark.parametrize("text", ["[]", "1", "null", "{", '"a"', "\xff", "[" * 100_000])
def test_json_that_is_no_object(text: str) -> None:
    with pytest.raises(CheckpointError, match="metadata"):
        parse_json(text)


OPENVINO = """<net name="g" version="11"><layers>
<layer id="0" name="x" type="Parameter" version="opset1"><data shape="?,3,32,32" element_type="f32"/>
<output><port id="0" precision="FP32"><dim>-1</dim><dim>3</dim><dim>32</dim><dim>32</dim></port></output></layer>
<layer id="1" name="r" type="ReLU" version="opset1"><input><port id="0" precision="FP32"><dim>-1</dim><dim>3</dim>
<dim>32</dim><dim>32</dim></port></input><output><port id="1" precision="FP32"><dim>-1</dim><dim>3</dim><dim>32</dim>
<dim>32</dim></port></output></layer>
<layer id="2" name="y" type="Result" version="opset1"><input><port id="0" precision="FP32"><dim>-1</dim><dim>3</dim>
<dim>32</dim><dim>32</dim></port></input></layer></layers>
<edges><edge from-layer="0" from-port="0" to-layer="1" to-port="0"/><edge from-layer="1" from-port="1" to-layer="2"
to-port="0"/></edges><rt_info><imgtool>%s</imgtool></rt_info></net>"""


def test_openvino_metadata(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    path = tmp_path / "a.xml"
    contents: list[Any] = [
        b"",
        b'<imgsz value="-1"/>',
        b'<imgtool value="\xff"/>',
        b'<names><a value="1"/></names>',
        b"text",
    ]
    for content in contents:
        path.write_bytes(OPENVINO.replace("%s", "@").encode().replace(b"@", content))
        assert not opened(path)
