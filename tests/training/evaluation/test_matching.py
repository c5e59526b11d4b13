"""Validation on data sets with some of the model's classes, prepared and raw, and results per class."""

import csv
import io
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from imgtool import wordnet
from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.loaders.raw_split import RawSplit, is_raw
from imgtool.training.classifier import Classifier
from imgtool.training.evaluation.evaluate import evaluate
from imgtool.training.evaluation.matching import ClassMatch, match_classes, resolve_index_folders
from imgtool.training.evaluation.per_class import PerClass
from imgtool.training.runtimes.native import Native
from imgtool.wordnet.errors import CheckpointError, DatasetError, ImageError, InputError
from imgtool.wordnet.imagenet.subsets import subset
from imgtool.wordnet.metrics import Evaluation

pytestmark = pytest.mark.numeric

CPU = torch.device("cpu")
IN1K = wordnet.load().wnids


class LogitTable(nn.Module):
    """Looks logits up by the value of the first pixel."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: Tensor) -> Tensor:
        return self.logits[(x[:, 0, 0, 0] * 255).round().long()]


def batches(count: int, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    return list(zip(images.split(7), labels.split(7), strict=True))


def test_imagenet_a_is_evaluated_as_published() -> None:
    """Argmax over the 200 logits, by hand; hierarchical metrics of these predictions in the hierarchy of all 1000."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(60, 1000, generator=generator)
    mask = torch.from_numpy(subset("imagenet-a").indices)
    labels = torch.randint(200, (60,), generator=generator)
    for image in range(0, 60, 3):
        logits[image, mask[labels[image]]] += 3
    matched = match_classes(list(subset("imagenet-a").labels), IN1K, "here", None, False)
    assert matched.candidates is not None and torch.equal(matched.candidates, mask)
    h = wordnet.load()
    model, data = Native(LogitTable(logits)), batches(60, labels)
    evaluation = Evaluation(h)
    observers = [lambda batch: evaluation.update(batch.best, batch.labels)]
    metrics = evaluate(model, data, CPU, matched, observers=observers)
    of_200 = logits[:, mask]
    assert metrics.classes == 200
    assert metrics.top1 == (of_200.argmax(1) == labels).double().mean()
    assert metrics.top5 == (of_200.topk(5).indices == labels[:, None]).any(1).double().mean()
    assert metrics.loss == pytest.approx(float(nn.functional.cross_entropy(of_200, labels)), rel=1e-5)
    ranked = mask[of_200.topk(5).indices].numpy()
    assert evaluation.result() == wordnet.evaluation.evaluate(h, ranked, mask[labels].numpy())
    among_all = evaluate(Native(LogitTable(logits)), batches(60, labels), CPU, ClassMatch(matched.class_map))
    assert among_all.classes == 1000
    assert among_all.top1 == (logits.argmax(1) == mask[labels]).double().mean() < metrics.top1


def test_results_per_class() -> None:
    """Compares with counts by hand."""
    generator = torch.Generator().manual_seed(1)
    logits, labels = torch.randn(200, 9, generator=generator), torch.randint(8, (200,), generator=generator)
    logits[torch.arange(200), labels] += 1
    rows = PerClass()
    metrics = evaluate(Native(LogitTable(logits)), batches(200, labels), CPU, observers=[rows])
    wnids, names = [f"w{i}" for i in range(9)], [f"name {i}" for i in range(9)]
    results = rows.results(wnids, names, range(9))
    first, five = logits.argmax(1).tolist(), logits.topk(5).indices.tolist()
    pairs = list(zip(labels.tolist(), first, five, strict=True))
    for row in results[:8]:
        of_class = [(p, f) for label, p, f in pairs if label == row.class_index]
        wrong = Counter(p for p, _ in of_class if p != row.class_index)
        assert row.images == len(of_class)
        assert row.right_top1 == sum(p == row.class_index for p, _ in of_class)
        assert row.right_top5 == sum(row.class_index in f for _, f in of_class)
        assert row.top1 == row.right_top1 / row.images and row.top5 == row.right_top5 / row.images
        most = min(wrong, key=lambda c: (-wrong[c], c))
        assert (row.confused_wnid, row.confused_name, row.confused_images) == (f"w{most}", f"name {most}", wrong[most])
        true = logits.softmax(1)[labels == row.class_index, row.class_index].double().mean()
        assert row.probability == pytest.approx(float(true), rel=1e-5)
    assert results[8] == (8, "w8", "name 8", 0, 0, 0, None, None, None, "", "", 0)
    assert sum(row.right_top1 for row in results) == round(metrics.top1 * 200)


def test_folders_named_by_class_index() -> None:
    """As in ImageNet-V2: folder 10 is class 10, although "10" sorts before "2"."""
    folders = sorted(map(str, range(1000)))
    assert resolve_index_folders(folders, IN1K, "v2") == [IN1K[int(name)] for name in folders]
    assert resolve_index_folders(["0007", "12"], IN1K, "v2") == [IN1K[7], IN1K[12]]
    assert resolve_index_folders(["5"], wordnet.load("in12k").wnids + IN1K, "v2") == [IN1K[5]], (
        "indices of ILSVRC2012 if the model has all its classes"
    )
    assert resolve_index_folders(["1"], ["n2", "n1", "n3"], "own") == ["n2"]
    assert resolve_index_folders(["1", "0"], ["0", "1"], "digits") == ["1", "0"], "the model's classes have these names"
    assert resolve_index_folders(["n01440764", "3"], IN1K, "mixed") == ["n01440764", "3"]
    with pytest.raises(CheckpointError, match=r"v2: folder 1000 .*1000 classes"):
        resolve_index_folders(["1000"], IN1K, "v2")


@pytest.fixture(scope="module")
def subject(scattered: Callable[..., Path]) -> Classifier:
    return Classifier(scattered(IN1K))


def write(folder: Path, names: list[str], draw_image: Callable[..., np.ndarray]) -> Path:
    """Writes two synthetic images per class folder."""
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for seed in (number, number + 50):
            Image.fromarray(draw_image(90, 70, seed)).save(folder / name / f"{seed}.jpg")
    return folder


def expected(subject: Classifier, folder: Path, index_of: dict[str, int], candidates: list[int] | None = None) -> float:
    """Computes top-1 among the candidates by hand, from `predict` over all classes."""
    correct = 0
    found = subject.predict(folder, topk=1000)
    for f in found:
        ranked = [i for i in f.indices if candidates is None or i in candidates]
        correct += ranked[0] == index_of[Path(f.path or "").parent.name]
    return correct / len(found)


def test_a_folder_in_imagenet_v2s_layout(
    subject: Classifier, draw_image: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    names = ["0", "2", "10", "100", "999"]
    folder = write(tmp_path / "v2", names, draw_image)
    index_of = {name: int(name) for name in names}
    metrics = subject.val(folder, per_class=tmp_path / "c.csv", workers=2)
    assert (metrics.images, metrics.classes, metrics.top5) == (10, 5, 1.0)
    assert metrics.top1 == expected(subject, folder, index_of, list(index_of.values()))
    with open(tmp_path / "c.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["class_index"], row["wnid"]) for row in rows] == [(str(i), IN1K[i]) for i in sorted(map(int, names))]
    among_all = subject.val(folder, all_classes=True, batch=3)
    assert among_all.classes == 1000 and among_all.hierarchy is not None
    assert among_all.top1 == expected(subject, folder, index_of)


def test_wnid_folders_as_a_folder_and_as_archives(
    subject: Classifier, draw_image: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    """The layout of ImageNet-A and -R as downloaded: class folders and a README."""
    wnids = list(subset("imagenet-r").labels[:8])
    folder = write(tmp_path / "imagenet-r", wnids, draw_image)
    (folder / "README.txt").write_text("renditions")
    plain = subject.val(folder)
    assert plain.classes == 8 and plain.hierarchy is not None
    for name, mode in (("r.tar", "w"), ("r.tar.gz", "w:gz")):
        with tarfile.open(tmp_path / name, mode) as archive:
            archive.add(folder, "imagenet-r")
        again = subject.val(tmp_path / name)
        assert (again.top1, again.top5, again.loss) == (plain.top1, plain.top5, pytest.approx(plain.loss, rel=1e-4))
        assert again.hierarchy == plain.hierarchy


def test_a_prepared_data_set_of_some_classes(
    subject: Classifier, drawn: Path, drawn_data: Path, tmp_path: Path
) -> None:
    metrics = subject.val(drawn_data)
    wnids = Dataset(drawn_data).wnids
    assert metrics.classes == len(wnids) == 10 and metrics.images == 20
    assert subject.val(drawn_data, all_classes=True).classes == 1000
    few = Classifier(subject.checkpoint or "")
    few.trained.wnids = ["n99999999" if wnid == wnids[0] else wnid for wnid in few.wnids]
    with pytest.raises(CheckpointError, match=f"1 only in the data set .*{wnids[0]}.*991 only in the checkpoint"):
        few.val(drawn_data)
    raw = subject.val(drawn, batch=8)  # the original archives
    assert raw.images == 20 and raw.classes == 10
    with pytest.raises(InputError, match="raw data set: a label map"):
        subject.val(drawn, labelmap=wordnet.load(wnids).labelmap({"a": "animal.n.01"}, other="other"))


def test_errors_of_raw_data_sets(
    subject: Classifier, draw_image: Callable[..., np.ndarray], tmp_path: Path, drawn_data: Path
) -> None:
    assert not is_raw(drawn_data) and not is_raw(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="no data set here"):
        subject.val(tmp_path / "nowhere")
    folder = write(tmp_path / "x", IN1K[:2], draw_image)
    assert is_raw(folder)
    (folder / IN1K[0] / "bad.jpg").write_bytes(b"\xff\xd8\xff no")
    with pytest.raises(ImageError, match=r"x: n01440764/bad\.jpg: "):
        subject.val(folder)
    with pytest.raises(InputError, match="cannot be written"):
        subject.val(folder, per_class=tmp_path / "no" / "where.csv")
    with tarfile.open(tmp_path / "two.tar", "w") as archive:
        for split in ("train", "val"):
            member = tarfile.TarInfo(f"{split}/{IN1K[0]}/a.jpg")
            archive.addfile(member, io.BytesIO())
    with pytest.raises(DatasetError, match=r"two\.tar.* no split 'minival'.* train, val"):
        RawSplit(tmp_path / "two.tar", "minival")
