"""Fixtures for all tests: real images and published facts, if they are present, and synthetic sources."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

with contextlib.suppress(ImportError):  # tests/gpu do not need it
    from hypothesis import HealthCheck, settings

    # by default, hypothesis fails examples that take 200 ms or are slow to generate, as on a busy machine
    settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("untimed")

SHARED = Path(__file__).parents[2] / "shared"


def _shared(relative: str) -> Path:
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"{path} is missing: real images and published facts are stored next to the checkout")
    return path


@pytest.fixture(scope="session")
def wait_until() -> Callable[[Callable[[], object], str], None]:
    """wait_until(condition, what) waits until the condition holds; fails with ``what`` after five minutes.

    This is far more than any machine needs: only an error takes that long.
    """

    def wait(condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + 300
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"did not happen in five minutes: {what}")
            time.sleep(0.01)

    return wait


@pytest.fixture(scope="session")
def mini() -> Path:
    """Real images in ILSVRC2012's raw layout: 500 for training, 100 for validation."""
    return _shared("data/ILSVRC2012-mini")


@pytest.fixture(scope="session")
def tiny() -> Path:
    """A tar in Tiny-ImageNet's layout: 100 classes, 20,000 training and 5,000 validation images of 64 x 64."""
    return _shared("data/tiny-imagenet-100.tar")


@pytest.fixture(scope="session")
def facts() -> Path:
    """The folder of published facts."""
    return _shared("facts")


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic source in ILSVRC2012's raw layout: 10 classes, 80 training and 20 validation images."""
    from imgtool.sample import write_sample

    out = tmp_path_factory.mktemp("drawn") / "ILSVRC2012"
    write_sample(out, train_count=8, val_count=2)
    return out


@pytest.fixture(scope="session")
def drawn_data(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic source, prepared."""
    from imgtool.pipelines.prepare import prepare

    out = tmp_path_factory.mktemp("drawn_data") / "data"
    prepare(drawn, out, workers=1)
    return out


@pytest.fixture(scope="session")
def draw_image() -> Callable[..., np.ndarray]:
    """draw_image(width, height, seed) returns RGB pixels with edges, gradients and texture."""

    def make(width: int = 320, height: int = 240, seed: int = 0) -> np.ndarray:
        from imgtool.drawing import CLASSES, draw

        rng = np.random.default_rng(seed)
        return np.array(draw(sorted(CLASSES)[seed % len(CLASSES)], width, height, rng))

    return make


@pytest.fixture(scope="session")
def encoded() -> Callable[..., bytes]:
    """encoded(pixels or image, format, **Pillow's options) returns the bytes of an image file."""

    def encode(image: np.ndarray | Image.Image, form: str = "JPEG", **options: object) -> bytes:
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        buffer = io.BytesIO()
        image.save(buffer, form, **options)
        return buffer.getvalue()

    return encode


@pytest.fixture(scope="session")
def scattered(draw_image: Callable[..., np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """scattered(wnids) makes an n model with random weights, for 64 pixels, whose predictions differ between images."""
    import torch

    from imgtool import wordnet
    from imgtool.training import recipes
    from imgtool.training.checkpoints import checkpoint
    from imgtool.training.models import yolov8

    def make(wnids: list[str], names: list[str] | None = None) -> Path:
        torch.manual_seed(0)
        model = yolov8.build("n", len(wnids))
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # the plain mean, so that one batch sets the statistics
        batch = torch.from_numpy(np.stack([draw_image(64, 64, seed) for seed in range(16)])).permute(0, 3, 1, 2)
        with torch.no_grad():
            model.train()(batch / 255)
            linear = model.get_submodule("model.9.linear")
            assert isinstance(linear, torch.nn.Linear)
            linear.weight *= 30
        path = tmp_path_factory.mktemp("scattered") / "weights.pt"
        content = {
            "size": "n",
            "dropout": 0.0,
            "imgsz": 64,
            "wnids": wnids,
            "names": names or wordnet.load(wnids).names,
            "epoch": 1,
            "metrics": {"top1": 0.0, "top5": 0.0},
            "recipe": recipes.load("n").to_dict(),
            "ema": model.state_dict(),
            "resume": None,
        }
        checkpoint.save(path, content)
        return path

    return make


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium with readable logs."""
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium")
    if not driver or not chromium:
        pytest.skip("Debian's chromium and chromium-driver are not installed")
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    yield browser
    browser.quit()


@pytest.fixture(scope="session")
def open_page() -> Callable[..., list[str]]:
    """open_page(browser, path, width) opens a page; returns its console messages and the other URLs it requests."""

    def open_it(browser: Any, path: Path, width: int = 1280) -> list[str]:
        browser.set_window_size(width, 900)
        browser.get_log("performance")
        browser.get(path.as_uri())
        messages = [entry["message"] for entry in browser.get_log("browser")]
        for entry in browser.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            url = message["params"].get("request", {}).get("url", "")
            if message["method"] == "Network.requestWillBeSent" and not url.startswith(("data:", path.as_uri())):
                messages.append(url)
        return messages

    return open_it
