"""Runs the documentation: every command and every Python block of README, CONTRIBUTING and docs/.

Each document runs in its own order, in a folder with everything that its commands name (`base`): a drawn source as
ILSVRC2012, the same prepared as data/imagenet, a run as runs/train, images. README makes the first three itself.
`REPLACED` and `SMALL` reduce a day's work to seconds. Output shown after a command is compared with the real one, but
for numbers. A command that cannot be run like this (`NOT_RUN`) is only parsed, so that a command, option or value that
no longer exists still fails.
"""

from __future__ import annotations

import doctest
import importlib.util
import io
import json
import re
import runpy
import shlex
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from imgtool.cli import main

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

REPLACED = {  # in commands and Python blocks: what is written, what is run instead
    "--src SOURCE": "--src ILSVRC2012",
    "bench NAME": "bench wordnet",
    "info PATH": "info data/imagenet",
    "verify DATA": "verify data/imagenet",
    "val --weights RUN --plots FOLDER": "val --weights runs/train --plots folder",
    "s3://bucket/folder": "file://{here}/images",
    "https://host/a.zip": "file://{here}/a.zip",
    "epochs=100, imgsz=224": "epochs=1, imgsz=32, batch=16",
    "range(100)": "range(1)",
    'image_size=224, device="cuda"': 'image_size=32, device="cpu"',
    "batch_size=256": "batch_size=8",
}
SMALL = {  # options added to a command
    "sample": "--train 8 --val 2",
    "train": "--epochs 1 --imgsz 32 --batch 16 --no-plots --device cpu",
}
MADE = {"README.md": ("ILSVRC2012", "data", "runs")}  # folders that a document makes, instead of finding them
NOT_RUN = {  # commands that are only parsed, and why
    r"imgtool bench": "test_bench.py runs each of them",
    r"--gpus|torchrun": "several processes: test_distributed.py",
    r"train --resume$": "needs a run that was stopped: test_resume.py",
    r"--logger wandb": "an account: test_loggers.py",
    r"--real ": "labels of the 1000 classes: test_hierarchy.py",
    r"s3://raw": "a store and a cluster: test_remote.py",
}
NEEDS = {  # the package that a command or block needs; where it is not installed, they are only parsed
    r"imgtool export (?!.*ultralytics)|\.onnx|onnxruntime": "onnxruntime",
    r"--format openvino": "openvino",
    r"timm:": "timm",
    r"--logger tensorboard": "tensorboard",
    r"yolov8n-cls\.pt|ultralytics\.nn": "ultralytics",
}
FOREIGN = {"--no-deps", "--nproc-per-node", "--max-restarts"}  # options of other programs


class Item(NamedTuple):
    """Something that can be typed.

    ``kind`` is "block" (a line of an indented block, without prompt and comment), "inline" or "python". ``output`` is
    what a block shows after a command with the prompt "$".
    """

    line: int
    kind: str
    text: str
    output: str = ""


def items(document: Path) -> list[Item]:
    """Returns everything that can be typed, in the document's order."""
    text = document.read_text("utf-8")
    found = []

    def blank(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", match[0])

    def at(position: int) -> int:
        return text.count("\n", 0, position) + 1

    fenced = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
    for block in fenced.finditer(text):
        assert block[1] == "python", f"{document.name}:{at(block.start())}: a fenced block of {block[1] or 'nothing'}"
        found.append(Item(at(block.start(2)), "python", block[2]))
    text = fenced.sub(blank, text)
    session = re.compile(r"^ {4}\$ (\S.*?)(?: +#.*)?\n((?: {4}(?!\$ ).*\n)*)", re.M)
    found += [Item(at(one.start()), "block", one[1], one[2]) for one in session.finditer(text)]
    text = session.sub(blank, text)
    indented = re.compile(r"^ {4}(\S.*?)(?: +#.*)?$", re.M)
    found += [Item(at(line.start()), "block", line[1]) for line in indented.finditer(text)]
    for code in re.finditer(r"`([^`]+)`", indented.sub(blank, text)):
        found.append(Item(at(code.start()), "inline", " ".join(code[1].split())))
    return sorted(found)


def imgtool(text: str) -> list[str] | None:
    """Returns the arguments of imgtool in a line of shell, or None; "torchrun … -m imgtool" is a call too."""
    words = shlex.split(text, comments=True) if re.search(r"\bimgtool( |$)", text) else []
    if "imgtool" not in words or "[OPTIONS]" in words or "COMMAND" in words:
        return None
    before = words[: words.index("imgtool")]
    if before and before[-1] not in ("-m", "|"):  # "pip install imgtool"
        return None
    return words[words.index("imgtool") + 1 :]


def parse(words: list[str], complete: bool) -> None:
    """Raises click's error for an unknown command, option or value; if ``complete``, also for a missing one."""
    command: click.Command = main
    # The settings are passed because a command keeps the names of its help option from its first context.
    context = click.Context(main, info_name="imgtool", **main.context_settings)
    while isinstance(command, click.Group) and words and words[0] not in ("--help", "--version"):
        command.parse_args(context, words)
        kept = vars(context).get("_protected_args", vars(context).get("protected_args", []))  # since click 8.2; before
        words = [*kept, *context.args]
        name, child, words = command.resolve_command(context, words)
        assert child is not None
        command, context = child, click.Context(child, context, info_name=name)
    if isinstance(command, click.Group):
        return
    try:
        with context:
            command.parse_args(context, words)
    except click.MissingParameter:
        if complete:
            raise


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base(drawn: Path, drawn_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the documents' commands name."""
    home = tmp_path_factory.mktemp("documents")
    shutil.copytree(drawn, home / "ILSVRC2012")
    for name in ("imagenet", "flowers", "tiny100", "x"):
        shutil.copytree(drawn_data, home / "data" / name)
    with tarfile.open(drawn / "ILSVRC2012_img_val.tar") as archive:
        images = [(member.name, archive.extractfile(member).read()) for member in archive]  # type: ignore[union-attr]
    for name in ("image.jpg", "a.jpg", "images/a.jpg", "more/and/b.png"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(images[0][1])
    with zipfile.ZipFile(home / "a.zip", "w") as zipped:
        zipped.writestr("a.jpg", images[0][1])
    with tarfile.open(home / "imagenet-a.tar", "w") as folders:
        for number, (name, data) in enumerate(images[:4]):
            info = tarfile.TarInfo(f"imagenet-a/{('n02391049', 'n07747607')[number % 2]}/{name}")
            info.size = len(data)
            folders.addfile(info, io.BytesIO(data))
    for name in ("tiny-imagenet-200.tar", "tiny-imagenet-100.tar"):
        shutil.copy(home / "imagenet-a.tar", home / name)
    (home / "real.json").write_text(json.dumps([[340]] * 20))
    (home / "mine.toml").write_text((ROOT / "training" / "recipes" / "n.toml").read_text())
    _published(home / "yolov8n-cls.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        run(["train", "--size", "n", "--name", "train"])
    return home


def _published(path: Path) -> None:
    """Writes a checkpoint in the form that Ultralytics publishes, with random weights."""
    if importlib.util.find_spec("ultralytics") is None:
        return
    from ultralytics.nn.tasks import ClassificationModel

    from imgtool.wordnet import orders

    model = ClassificationModel("yolov8n-cls.yaml", nc=1000, verbose=False)
    model.names = dict(enumerate(orders.ilsvrc2012_wnids()))
    torch.save({"model": model.half(), "ema": None, "version": "8.0.0"}, path)


@pytest.fixture
def workspace(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `base`, as the current folder."""
    home = tmp_path / "home"
    shutil.copytree(base, home)
    monkeypatch.chdir(home)
    return home


def run(words: list[str], stdin: bytes = b"") -> str:
    """Runs a command and returns what it prints."""
    done = CliRunner().invoke(main, [*words, *SMALL.get(words[0], "").split()], input=stdin)
    assert done.exit_code == 0, done.output + repr(done.exception)
    assert "unexpected" not in done.output, done.output
    return done.output


def pattern(line: str) -> str:
    """Returns a regular expression for a line of shown output: any numbers, "…" for any text, any predicted class."""
    text = " ".join(re.sub(r"\bn\d{8} .*", "@@", line).split())
    text = re.escape(re.sub(r"(?<![\w@-])\d[\d.,:]*(e-\d+)?", "#", text))
    for mark, regex in (("\\#", r"[\d.,:]+(?:e-\d+)?"), ("@@", r"n\d{8} .*"), ("…", ".*"), ("\\ ", r"\s+")):
        text = text.replace(mark, regex)
    return text


def assert_shown(expected: str, printed: str) -> None:
    """Each expected line is printed, in this order."""
    for line in expected.splitlines():
        found = re.search(pattern(line), printed)
        assert found, f"{line.strip()!r} is shown, but this is printed:\n{printed}"
        printed = printed[found.end() :]


def piped(text: str) -> bytes:
    """Returns the standard input of imgtool after a pipe."""
    first = text.split("|")[0].split()
    if "|" not in text:
        return b""
    return {"curl": Path("a.jpg").read_bytes(), "find": b"./a.jpg\n./images/a.jpg\n"}[first[0]]


def run_python(item: Item, document: Path, namespace: dict[str, Any]) -> None:
    """Runs a block; a session with >>> must print what it shows."""
    if ">>> " not in item.text:
        exec(compile("\n" * (item.line - 1) + item.text, str(document), "exec"), namespace)
        return
    test = doctest.DocTestParser().get_doctest(item.text, namespace, document.name, str(document), item.line - 1)
    problems: list[str] = []
    with np.printoptions(formatter=None, linewidth=75):  # ultralytics sets its own when it is imported
        doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=problems.append, clear_globs=False)
    namespace.update(test.globs)
    assert not problems, "\n".join(problems)


def can_run(text: str) -> bool:
    needs = (module for pattern, module in NEEDS.items() if re.search(pattern, text))
    return all(importlib.util.find_spec(module) for module in needs)


def to_be_run(kind: str, text: str, words: list[str]) -> bool:
    """Whether a command is complete and can run here. Within a sentence only commands that look something up do."""
    complete = kind == "block" or (words[:1] in (["info"], ["synset"], ["verify"]) and len(words) > 1)
    return complete and can_run(text) and not any(re.search(pattern, text) for pattern in NOT_RUN)


def known_names() -> dict[str, Any]:
    """Returns the variables that blocks use without defining them."""
    from PIL import Image

    from imgtool import Classifier

    image = Image.open("a.jpg").convert("RGB")
    pixels = np.asarray(image).copy()
    return {
        "classifier": Classifier("runs/train"),
        "pil_image": image,
        "uint8_array_hwc": pixels,
        "uint8_tensor_chw": torch.from_numpy(pixels).permute(2, 0, 1),
        "jpeg_bytes": Path("a.jpg").read_bytes(),
    }


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_document(document: Path, workspace: Path) -> None:
    namespace: dict[str, Any] = known_names()
    for name in MADE.get(document.name, ()):
        shutil.rmtree(name)
    done: set[str] = set()
    for item in items(document):
        text = item.text
        for written, here in REPLACED.items():
            text = text.replace(written, here.format(here=workspace))
        if item.kind == "python":
            if can_run(text):
                run_python(item._replace(text=text), document, namespace)
        elif (words := imgtool(text)) is not None and text not in done:
            done.add(text)
            try:
                parse(list(words), complete=item.kind == "block")
                if to_be_run(item.kind, text, words):
                    assert_shown(item.output, run(words, piped(text)))
            except (click.ClickException, AssertionError) as error:
                pytest.fail(f"{document.name}:{item.line}: {item.text}\n{getattr(error, 'message', error)}")


@pytest.mark.parametrize(
    "text",
    [
        "imgtool trian --size n",
        "imgtool train --sizes n",
        "imgtool train --size q",
        "imgtool synset lca dog.n.01 cat.n.01 --by width",
        "imgtool bench memory",
        "imgtool bench inference --batches one",
        "torchrun --nproc-per-node 2 -m imgtool train --gpu 2",
        "curl -s a.jpg | imgtool predict - --weights runs/train --yaml",
    ],
)
def test_a_wrong_command_is_noticed(text: str) -> None:
    words = imgtool(text)
    assert words is not None
    with pytest.raises(click.ClickException):
        parse(words, complete=False)


def test_wrong_output_is_noticed() -> None:
    printed = "top-1 50.00%  loss 1.2e-05  on 20 images\nruns/train: weights/best.pt\n  9.10%  n02391049  zebra\n"
    for line in ("top-1 9.5% loss 3e-06 on 1,000 images", "top-1 95.00%  … images", "0.1%  n07747607  orange  [fruit]"):
        assert_shown(line, printed)
    for line in ("top-5 95.00%", "top-1 95.00% on", "runs/train: weights/last.pt", "runs/train: …\ntop-1 50.00%"):
        with pytest.raises(AssertionError):
            assert_shown(line, printed)


def test_a_missing_option_is_noticed() -> None:
    parse(["val", "--data", "data/imagenet"], complete=False)
    with pytest.raises(click.MissingParameter):
        parse(["val", "--data", "data/imagenet"], complete=True)


def test_every_option_in_the_text_exists() -> None:
    commands = runpy.run_path(str(ROOT / "docs" / "cli.py"))["commands"]()
    options = [one for _, command in commands for one in command.params if isinstance(one, click.Option)]
    known = {name for option in options for name in (*option.opts, *option.secondary_opts)} | {"--help", *FOREIGN}
    for document in DOCUMENTS:
        for item in items(document):
            if item.kind == "inline" and item.text.startswith("--"):
                named = set(re.findall(r"(?<!\S)--[a-z][a-z0-9-]*", item.text))
                assert named <= known, f"{document.name}:{item.line}: {named - known}"


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.M))
    found = 0
    for document in DOCUMENTS:
        for item in items(document):
            if item.kind == "python" or not item.text.startswith("make "):
                continue
            found += 1
            for word in shlex.split(item.text, comments=True)[1:]:
                name, _, value = word.partition("=")
                where = f"{document.name}:{item.line}: {item.text}"
                if "=" not in word:
                    assert name in targets, where
                else:
                    assert f"$({name})" in makefile, where
                    if name == "ARGS":
                        parse(["bench", "gpu", *shlex.split(value)], complete=True)
    assert found > 5


def test_the_tables_of_this_file_are_up_to_date() -> None:
    """Everything that is replaced, not run or foreign still occurs in a document."""
    everything = [(document, item) for document in DOCUMENTS for item in items(document)]
    texts = [item.text for _, item in everything]
    for written in (*REPLACED, *FOREIGN):
        assert any(written in text for text in texts), written
    for pattern in (*NOT_RUN, *NEEDS):
        assert any(re.search(pattern, text) for text in texts), pattern
    commands = [item for _, item in everything if item.kind != "python" and imgtool(item.text) is not None]
    assert len(commands) > 50 and sum(item.kind == "python" for _, item in everything) > 20
