"""Exported models predict what their checkpoint predicts, in every format; errors of export and of opening a file."""

import functools
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imgtool.cli import main
from imgtool.pipelines.codec import center_crop
from imgtool.pipelines.dataset import Dataset
from imgtool.training import recipes
from imgtool.training.checkpoints import checkpoint
from imgtool.training.classifier import Classifier
from imgtool.training.export import formats, write
from imgtool.training.export.check import ExportCheck
from imgtool.training.export.graph import Preprocess, UnsplitC2f, unsplit
from imgtool.training.export.images import balanced_indices, synthetic_images
from imgtool.training.export.writers import WRITERS
from imgtool.training.models import losses, yolov8
from imgtool.training.parallel.device import exact_float32
from imgtool.training.runtimes import onnx, readers, tensorrt
from imgtool.training.runtimes.metadata import ModelMetadata
from imgtool.wordnet.errors import CheckpointError, InputError, TrainingError

pytestmark = pytest.mark.numeric

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torchscript": ".torchscript"}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "half": {"half": True},
    "images": {"with_preprocess": True},
    "batch of 3": {"batch": 3},
}
QUICK = {("onnx", "plain"), ("onnx", "half"), ("onnx", "images"), ("openvino", "plain")}
QUICK |= {("torchscript", variant) for variant in VARIANTS}
COMBINATIONS = [
    pytest.param(form, variant, marks=() if (form, variant) in QUICK else pytest.mark.slow)
    for form in SUFFIXES
    for variant in VARIANTS
]


@pytest.fixture(scope="module")
def weights(scattered: Callable[..., Path], drawn_data: Path) -> Path:
    return scattered(Dataset(drawn_data).wnids)


@pytest.fixture(scope="module")
def exported(
    weights: Path, drawn_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], write.Exported]:
    """exported(format, variant): the result of ``export``, made once each in a separate folder; read-only."""

    @functools.cache  # no defaults: a call with and one without them would be two entries
    def make(form: str, variant: str) -> write.Exported:
        out = tmp_path_factory.mktemp("exported") / f"a{SUFFIXES[form]}"
        return Classifier(weights).export(form, out, data=drawn_data, **VARIANTS[variant])

    return make


@pytest.fixture
def onnx_file(exported: Callable[[str, str], write.Exported]) -> Path:
    return exported("onnx", "plain").files[0]


def pixels_of(draw_image: Callable[..., np.ndarray]) -> list[np.ndarray]:
    return [draw_image(90 + 20 * seed, 80, seed) for seed in range(5)]


@pytest.mark.parametrize(("form", "variant"), COMBINATIONS)
def test_every_format_predicts_as_its_checkpoint(
    form: str,
    variant: str,
    exported: Callable[[str, str], write.Exported],
    weights: Path,
    drawn_data: Path,
    draw_image: Callable[..., np.ndarray],
) -> None:
    subject, written = Classifier(weights), exported(form, variant)
    out = written.files[0]
    assert out.name == f"a{SUFFIXES[form]}" and written.check is not None and written.check.passed
    assert not written.check.drawn and written.check.images == 20
    assert sorted(path.name for path in out.parent.iterdir()) == sorted(path.name for path in written.files)
    again = Classifier(out, threads=1)
    assert (again.wnids, again.names, again.size, again.imgsz) == (subject.wnids, subject.names, "n", 64)
    assert again.metrics == subject.metrics
    images = pixels_of(draw_image)
    tolerance = 0.05 if variant == "half" else 1e-4
    for found, expected in zip(again.predict(images, topk=10), subject.predict(images, topk=10), strict=True):
        rows = [dict(zip(p.wnids, p.probabilities, strict=True)) for p in (found, expected)]
        assert rows[0] == pytest.approx(rows[1], abs=tolerance)
    if variant == "plain":
        assert again.val(drawn_data).top5 == subject.val(drawn_data).top5


def test_torch_export_is_written_and_checked_but_not_opened(weights: Path, drawn_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.pt2"
    written = Classifier(weights).export("torch-export", out, data=drawn_data, with_preprocess=True)
    assert written.check is not None and written.check.of == "probability"
    images = torch.from_numpy(np.stack([synthetic_images(1, 100)[0]] * 2))
    program = torch.export.load(str(out))
    rows = program.module()(images)
    assert rows.shape == (2, 10) and torch.allclose(rows.sum(1), torch.ones(2))
    with pytest.raises(CheckpointError, match="can run any code"):
        Classifier(out)


def test_onnx_with_preprocess_takes_images_of_any_size(
    weights: Path, exported: Callable[[str, str], write.Exported], draw_image: Callable[..., np.ndarray]
) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(exported("onnx", "images").files[0])
    assert json.loads(session.get_modelmeta().custom_metadata_map["transform"])["resize_short_side"] == 64
    for width, height in ((64, 64), (200, 64), (64, 65), (30, 41), (300, 301)):
        pixels = draw_image(width, height, 3)
        (found,) = session.run(["probabilities"], {"images": pixels[None]})
        expected = Classifier(weights).predict(pixels, topk=10)[0]
        assert found[0][expected.indices] == pytest.approx(expected.probabilities, abs=5e-2)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), st.integers(32, 96), st.randoms(use_true_random=False))
def test_the_transform_in_the_graph_equals_the_validation_transform(
    height: int, width: int, imgsz: int, random: Any
) -> None:
    pixels = np.random.default_rng(random.randrange(1000)).integers(0, 256, (height, width, 3), dtype=np.uint8)
    found = Preprocess(imgsz)(torch.from_numpy(pixels)[None])[0].permute(1, 2, 0).numpy() * 255
    expected = center_crop(pixels, imgsz).astype(float)
    assert np.abs(found - expected).max() < 1.01


def test_unsplit_computes_the_same_function() -> None:
    torch.manual_seed(0)
    network = yolov8.fuse(yolov8.build("n", 10))
    images = torch.rand(2, 3, 64, 64)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    other = unsplit(network)
    assert sum(isinstance(module, UnsplitC2f) for module in other.modules()) == 4
    assert not any(isinstance(module, yolov8.C2f) for module in other.modules())
    with torch.no_grad():
        expected = network(images)
        assert expected.std() > 1e-3
        torch.testing.assert_close(other(images), expected, rtol=1e-4, atol=1e-6)


def test_a_model_with_a_hierarchical_loss_exports_logits_per_class(drawn_data: Path, tmp_path: Path) -> None:
    wnids, names = Dataset(drawn_data).wnids, Dataset(drawn_data).names
    criterion = losses.from_spec("wordtree", wnids)
    torch.manual_seed(0)
    model = yolov8.build("n", criterion.outputs)
    torch.nn.init.normal_(model.get_parameter("model.9.linear.weight"), std=3)
    content = {
        "size": "n",
        "dropout": 0.0,
        "imgsz": 64,
        "wnids": wnids,
        "names": names,
        "epoch": 1,
        "metrics": None,
        "recipe": recipes.load("n").override(loss="wordtree").to_dict(),
        "ema": model.state_dict(),
        "resume": None,
    }
    checkpoint.save(tmp_path / "a.pt", content)
    subject = Classifier(tmp_path / "a.pt")
    subject.export("onnx", data=drawn_data)
    found, expected = (c.predict(synthetic_images(4, 64), topk=10) for c in (Classifier(tmp_path / "a.onnx"), subject))
    for one, other in zip(found, expected, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)


def test_another_librarys_network(drawn_data: Path, tmp_path: Path) -> None:
    from imgtool.training.models import registry

    content = checkpoint.load(_resnet(tmp_path, drawn_data, registry))
    assert content["size"] == "torchvision:resnet18"
    written = Classifier(tmp_path / "r.pt").export("onnx", data=drawn_data)
    assert written.check is not None and written.check.passed
    quantised = Classifier(tmp_path / "r.pt").export("onnx", int8=True, calibrate=drawn_data)
    assert quantised.check is not None and quantised.check.passed
    with pytest.raises(CheckpointError, match="no network torchvision:resnet18"):
        Classifier(tmp_path / "r.pt").export("ultralytics-state")


def _resnet(folder: Path, data: Path, registry: Any) -> Path:
    wnids = Dataset(data).wnids
    content = {
        "size": "torchvision:resnet18",
        "dropout": 0.0,
        "imgsz": 64,
        "wnids": wnids,
        "names": wnids,
        "epoch": 1,
        "metrics": None,
        "recipe": recipes.load("n").to_dict(),
        "ema": registry.build("torchvision:resnet18", len(wnids)).state_dict(),
        "resume": None,
    }
    checkpoint.save(folder / "r.pt", content)
    return folder / "r.pt"


def test_int8_is_calibrated_on_images_of_every_class(
    weights: Path, onnx_file: Path, drawn_data: Path, tmp_path: Path
) -> None:
    written = Classifier(weights).export("onnx", tmp_path / "q.onnx", int8=True, calibrate=drawn_data)
    assert written.calibration == 80 and written.check is not None and written.check.limit is None
    assert written.files[0].stat().st_size < 0.4 * onnx_file.stat().st_size
    quantised = Classifier(tmp_path / "q.onnx")
    assert quantised.wnids == Dataset(drawn_data).wnids
    assert quantised.val(drawn_data).images == 20


@pytest.mark.slow
def test_int8_with_the_transform_and_of_a_fixed_batch(weights: Path, drawn_data: Path, tmp_path: Path) -> None:
    images = Classifier(weights).export(
        "onnx", tmp_path / "w.onnx", int8=True, calibrate=drawn_data, with_preprocess=True
    )
    assert images.check is not None and images.check.same >= 15
    fixed = Classifier(weights).export("onnx", tmp_path / "f.onnx", int8=True, calibrate=drawn_data, batch=7)
    assert fixed.calibration == 80 and fixed.check is not None and fixed.check.passed


def test_sampling_is_balanced_over_classes_and_seeded() -> None:
    labels = np.array([0] * 50 + [1] * 3 + [2] * 20)
    chosen = balanced_indices(labels, 15, seed=1)
    assert np.bincount(labels[chosen]).tolist() == [6, 3, 6]
    assert chosen == balanced_indices(labels, 15, seed=1) and chosen != balanced_indices(labels, 15, seed=2)
    assert sorted(balanced_indices(labels, 100, seed=1)) == list(range(73))
    assert balanced_indices(labels[:0], 5, seed=1) == []


def test_without_a_data_set_it_is_checked_on_synthetic_images(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(weights, "a.pt")
    result = CliRunner().invoke(main, ["export", "a.pt", "--format", "torchscript"])
    assert result.exit_code == 0, result.output
    assert "a.torchscript" in result.output and "same top-1 class on 32 of 32 synthetic images" in result.output


def test_an_export_that_differs_does_not_replace_the_file(
    weights: Path, drawn_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.onnx"
    out.write_bytes(b"the one before")
    forward = write.ExportModule.forward
    monkeypatch.setattr(write.ExportModule, "forward", lambda self, images: forward(self, images) * 1.1)
    with pytest.raises(
        TrainingError, match=r"differs from its checkpoint: .*logits is .* times the limit .*a\.failed\.onnx"
    ):
        Classifier(weights).export("onnx", out, data=drawn_data)
    assert out.read_bytes() == b"the one before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.failed.onnx", "a.onnx"]


@pytest.mark.parametrize(
    ("difference", "limit", "failure"),
    [
        (0.34, 0.017, r"logits is 0\.34, 20 times the limit of 0\.017"),
        (0.34, None, r"12 of 20 images \(60%\), and 75% are required"),
        (float("nan"), 0.017, "NaN or infinite"),
    ],
)
def test_a_failed_check_says_which_condition_failed(difference: float, limit: float | None, failure: str) -> None:
    result = ExportCheck(difference, limit, "logits", same=12, images=20, drawn=False)
    assert not result.passed and re.search(failure, result.failure)
    assert ExportCheck(0.01, 0.017, "logits", same=12, images=20, drawn=False).failure == ""
    assert ExportCheck(0.34, None, "logits", same=15, images=20, drawn=False).failure == ""


def test_a_failed_write_leaves_no_files(
    weights: Path, drawn_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.jit, "save", fail)
    with pytest.raises(CheckpointError, match=r"cannot write .*a\.torchscript: .*No space left"):
        Classifier(weights).export("torchscript", tmp_path / "a.torchscript", data=drawn_data)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "onyx"}, "unknown format 'onyx'"),
        ({"out": "a.pt"}, "must end in .onnx"),
        ({"int8": True}, "data set to calibrate on"),
        ({"int8": True, "calibrate": "x", "half": True}, "full precision"),
        ({"calibrate": "x"}, r"--calibrate x .*without int8"),
        ({"data": "nowhere"}, "no data set here"),
        ({"format": "ultralytics-state", "half": True}, "stores only weights"),
        ({"format": "tensorrt", "with_preprocess": True}, "no antialiased resize"),
    ],
)
def test_wrong_options_are_errors(
    options: dict[str, Any], message: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        Classifier(weights).export(**options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="for a machine without CUDA")
def test_tensorrt_names_what_it_needs(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tensorrt is not installed: pip install|needs an NVIDIA"):
        Classifier(weights).export("tensorrt", tmp_path / "a.engine")


def test_an_engine_file_holds_its_metadata_before_the_engine(tmp_path: Path) -> None:
    path = tmp_path / "a.engine"
    metadata = json.dumps({"imgtool": '"1"'}).encode()
    path.write_bytes(len(metadata).to_bytes(4, "little") + metadata + b"engine")
    assert tensorrt.split_file(path) == ({"imgtool": '"1"'}, b"engine")
    path.write_bytes(b"ptrt\0\0\0\0a bare engine")
    assert tensorrt.split_file(path) == ({}, b"ptrt\0\0\0\0a bare engine")
    for broken in (b"", b"\2\0\0\0{x rest"):
        path.write_bytes(broken)
        with pytest.raises(CheckpointError):
            tensorrt.split_file(path)


def test_an_exported_model_cannot_be_trained_or_exported(onnx_file: Path, drawn_data: Path) -> None:
    subject = Classifier(onnx_file, "cpu")
    with pytest.raises(InputError, match="cannot be trained"):
        subject.train(drawn_data)
    with pytest.raises(InputError, match="is an exported model already"):
        subject.export("torchscript")
    with pytest.raises(InputError, match="takes images of 64 pixels, not 96"):
        subject.predict(synthetic_images(1, 64), imgsz=96)
    with pytest.raises(InputError, match="device cpu: give device=cuda"):
        subject.predict(synthetic_images(1, 64), device="cuda")


@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".torchscript", ".engine"])
def test_a_malformed_file_is_an_error_of_one_line(suffix: str, onnx_file: Path, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    whole = onnx_file.read_bytes()
    for content in (b"", b"not a model", whole[: len(whole) // 2], os.urandom(500), b"<?xml version='1.0'?><net>"):
        path.write_bytes(content)
        result = CliRunner().invoke(main, ["predict", "nothing.jpg", "--weights", str(path)])
        assert result.exit_code == 2, content[:20]
        assert len(result.stderr.splitlines()) == 1 and str(path) in result.stderr
    path.unlink()
    assert "neither a size" in CliRunner().invoke(main, ["predict", "x.jpg", "--weights", str(path)]).stderr


def test_metadata_round_trip(weights: Path) -> None:
    from imgtool.training.export.settings import ExportSettings

    metadata = write.metadata_of(Classifier(weights).trained, ExportSettings(64, 4, preprocess=True))
    assert ModelMetadata.from_strings(metadata.to_strings()) == metadata
    for key in metadata.to_strings():
        with pytest.raises(CheckpointError, match="damaged"):
            ModelMetadata.from_strings(
                {k: v for k, v in metadata.to_strings().items() if k != key} | {"imgtool": '"1"', key: "{"}
            )


def test_export_and_predict_print_json(weights: Path, drawn_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    command = ["export", str(weights), "--out", str(out), "--data", str(drawn_data), "--batch", "2", "--json"]
    report = json.loads(CliRunner().invoke(main, command).stdout)
    assert report["files"] == [str(out)] and report["check"]["passed"] and report["check"]["same"] == 20
    for seed in range(3):
        Image.fromarray(synthetic_images(3, 80)[seed]).save(tmp_path / f"{seed}.png")
    args = [str(tmp_path / f"{seed}.png") for seed in range(3)]
    rows = []
    for source in (out, weights):
        result = CliRunner().invoke(main, ["predict", *args, "--weights", str(source), "--json", "--threads", "1"])
        rows.append([json.loads(line) for line in result.stdout.splitlines()])
    assert [row["wnids"] for row in rows[0]] == [row["wnids"] for row in rows[1]] and len(rows[0]) == 3


def test_every_format_has_a_writer_and_a_reader() -> None:
    assert {*WRITERS, formats.WEIGHTS_ONLY} == set(formats.SUFFIXES)
    assert set(readers.READERS) == {formats.SUFFIXES[name] for name in WRITERS}
    assert set(readers.READERS) == {".onnx", ".xml", ".engine", ".pt2", ".torchscript"}
    assert readers.recognises("x/a.onnx") and not readers.recognises("a.pt")


def test_exact_float32_turns_tf32_off_and_restores_it() -> None:
    kinds = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [kind.allow_tf32 for kind in kinds]
    with pytest.raises(ZeroDivisionError), exact_float32():
        assert [kind.allow_tf32 for kind in kinds] == [False, False]
        raise ZeroDivisionError
    assert [kind.allow_tf32 for kind in kinds] == before


def test_openvino_is_configured_for_float32(exported: Callable[[str, str], write.Exported]) -> None:
    """Checks the properties of the compiled model: on a processor without bfloat16 the outputs would not differ."""
    import openvino

    from imgtool.training.runtimes.openvino import options

    out = exported("openvino", "plain").files[0]
    compiled = openvino.Core().compile_model(str(out), "CPU", options(1))
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1


def test_models_of_imgtool_do_not_use_exact_int8_sums(onnx_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their weights have 7 bits. test_foreign.py checks that models of other programs get exact sums."""
    opened = []
    open_session = onnx.open_session
    monkeypatch.setattr(
        onnx, "open_session", lambda *args, **kw: opened.append(open_session(*args, **kw)) or opened[-1]
    )
    Classifier(onnx_file)
    assert opened[-1].get_session_options().get_session_config_entry("session.x64quantprecision") == "0"
