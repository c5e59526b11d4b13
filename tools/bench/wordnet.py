"""Claim: the hierarchy loads in milliseconds and answers for arrays; NLTK takes seconds and answers pair by pair.

\b
    imgtool bench wordnet

Both compute the same relations of the same random synsets and classes, and their results are compared. They take turns;
each round is a new process with numpy already imported. NLTK computes only a sample of the pairs, from which the time
for all pairs is extrapolated. It reads WordNet's files (Debian: wordnet-base), copied to where it expects them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from imgtool.bench.options import json_option, rehearsal, write_json


class Measurement(NamedTuple):
    """A row of the table; MEASUREMENTS maps the key of its number to it."""

    title: str
    unit: str
    scale: float = 1.0  # units per second


MEASUREMENTS = {
    "load": Measurement("import, and load all nouns and the 1000 classes", "ms", 1e3),
    "memory": Measurement("memory added by this", "MiB"),
    "memory_after": Measurement("memory added by this and all of the below", "MiB"),
    "names": Measurement("2,000 synsets by name, first time", "ms", 1e3),
    "names_again": Measurement("the same, second time", "ms", 1e3),
    "ancestors": Measurement("ancestors of each class", "ms", 1e3),
    "descendants": Measurement("descendants of animal.n.01, all nouns, as synsets", "ms", 1e3),
    "descendants_nodes": Measurement("the same as an array of nodes", "ms", 1e3),
    "lca": Measurement("lowest common ancestor of 10,000 random pairs", "ms", 1e3),
    "path": Measurement("path similarity of these pairs", "ms", 1e3),
    "wup": Measurement("Wu-Palmer similarity of these pairs", "ms", 1e3),
    "lca_matrix": Measurement("lowest common ancestors, 1000 × 1000", "ms", 1e3),
    "severity": Measurement("hierarchical distance of 50,000 × top-20 (NLTK: only the common ancestors)", "ms", 1e3),
}
EXTRAPOLATED = ("lca", "path", "wup", "lca_matrix", "severity")  # NLTK's times
IMAGES, TOP = 50_000, 20
PAIRS = 10_000


def nltk_corpus(folder: Path, wordnet: Path = Path("/usr/share/wordnet")) -> Path:
    """Makes NLTK's corpus from WordNet's files in ``folder``, for use as NLTK's data path; returns the corpus.

    NLTK opens only real files within its data path, and needs lexnames, which Debian's folder lacks.
    """
    from imgtool.wordnet.tables.nouns import FIRST_LEXNAME, LEXNAMES

    corpus = folder / "corpora" / "wordnet"
    corpus.mkdir(parents=True)
    for suffix in ("noun", "verb", "adj", "adv"):
        for name in (f"data.{suffix}", f"index.{suffix}", f"{suffix}.exc"):
            shutil.copyfile(wordnet / name, corpus / name)
    for name in ("cntlist.rev", "index.sense"):  # opened for word frequencies and sense keys
        (corpus / name).touch()
    others = [f"other.{number}" for number in range(FIRST_LEXNAME)]  # before the nouns: adj.all, adj.pert, adv.all
    verbs = [f"verb.{number}" for number in range(16)]  # after them, and adj.ppl
    lexnames = enumerate([*others, *LEXNAMES, *verbs])
    (corpus / "lexnames").write_text("".join(f"{number:02d}\t{name}\t0\n" for number, name in lexnames))
    return corpus


def resident() -> float:
    """Returns the resident memory of this process in MiB."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError as error:
        raise click.ClickException(
            f"cannot read the memory in use from /proc, which only Linux has: {error}"
        ) from error


def seconds(ask: Callable[[], Any], times: int = 1) -> float:
    """Returns the median time of ``times`` calls in seconds."""
    took = []
    for _ in range(times):
        start = time.perf_counter()
        ask()
        took.append(time.perf_counter() - start)
    return statistics.median(took)


def imgtool_measurements(
    names: Sequence[str], wnids: Sequence[str], pairs: Sequence[tuple[int, int]], sample: int
) -> dict[str, Any]:
    """Measures imgtool in this process; returns the measurements, and the answers to compare."""
    import numpy as np

    before = resident()
    start = time.perf_counter()
    from imgtool import wordnet

    full, h = wordnet.load("full"), wordnet.load("in1k")
    measured = {"load": time.perf_counter() - start, "memory": resident() - before}
    from imgtool.wordnet import metrics

    a, b = np.array(pairs).T
    measured |= {
        "names": seconds(lambda: [full[name] for name in names]),
        "names_again": seconds(lambda: [full[name] for name in names]),
        "lca_matrix": seconds(h.lca_matrix),
        "ancestors": seconds(lambda: [h[index].ancestors() for index in range(h.num_classes)]),
        "descendants": seconds(full["animal.n.01"].descendants, times=5),
        "descendants_nodes": seconds(lambda: full.descendants("animal.n.01"), times=5),
        "lca": seconds(lambda: h.lca(a, b)),
        "path": seconds(lambda: h.path(a, b)),
        "wup": seconds(lambda: h.wup(a, b)),
        "memory_after": resident() - before,
    }
    rng = np.random.default_rng(0)
    predictions, labels = rng.integers(0, h.num_classes, (IMAGES, TOP)), rng.integers(0, h.num_classes, IMAGES)
    measured["severity"] = seconds(lambda: metrics.hierarchical_distance(h, predictions, labels, TOP), times=5)
    a, b = a[:sample], b[:sample]
    answers = {
        "names": [full[name].wnid for name in names],
        "ancestors": sum(len(h[index].ancestors()) for index in range(h.num_classes)),
        "descendants": len(full["animal.n.01"].descendants()),
        "lca": h.depths[1][h.lca(a, b)].tolist(),
        "path": h.path(a, b).tolist(),
        "wup": h.wup(a, b).tolist(),
    }
    return {"measured": measured, "answers": answers}


def nltk_measurements(
    names: Sequence[str], wnids: Sequence[str], pairs: Sequence[tuple[int, int]], sample: int
) -> dict[str, Any]:
    """Measures NLTK in the same way; its data path is set in the environment."""
    before = resident()
    start = time.perf_counter()
    from nltk.corpus import wordnet

    wordnet.ensure_loaded()
    measured = {"load": time.perf_counter() - start, "memory": resident() - before}
    measured["names"] = seconds(lambda: [wordnet.synset(name) for name in names])
    measured["names_again"] = seconds(lambda: [wordnet.synset(name) for name in names])
    classes = [wordnet.synset_from_pos_and_offset("n", int(wnid[1:])) for wnid in wnids]
    both = [(classes[a], classes[b]) for a, b in pairs[:sample]]
    animal = wordnet.synset("animal.n.01")
    answers: dict[str, Any] = {"names": [f"n{wordnet.synset(name).offset():08d}" for name in names]}

    def keep(row: str, ask: Callable[[], Any]) -> Callable[[], None]:
        return lambda: answers.update({row: ask()})

    above = keep("ancestors", lambda: sum(len(set(s.closure(lambda s: s.hypernyms()))) for s in classes))
    below = keep("descendants", lambda: len(set(animal.closure(lambda s: s.hyponyms() + s.instance_hyponyms()))))
    lca = keep("lca", lambda: [x.lowest_common_hypernyms(y)[0].max_depth() for x, y in both])
    measured["ancestors"] = seconds(above)
    measured["descendants"] = seconds(below, times=5)
    measured["lca"] = seconds(lca) * len(pairs) / sample
    measured["path"] = seconds(keep("path", lambda: [x.path_similarity(y) for x, y in both])) * len(pairs) / sample
    measured["wup"] = seconds(keep("wup", lambda: [x.wup_similarity(y) for x, y in both])) * len(pairs) / sample
    measured["descendants_nodes"] = measured["descendants"]
    measured["lca_matrix"] = measured["lca"] / len(pairs) * len(classes) ** 2
    measured["severity"] = measured["lca"] / len(pairs) * IMAGES * TOP
    measured["memory_after"] = resident() - before
    return {"measured": measured, "answers": answers}


def child() -> None:
    """Runs in a new process: reads the questions from stdin, prints measurements and answers."""
    import numpy  # noqa: F401  imported before the clock starts

    question = json.load(sys.stdin)
    asked = {"ours": imgtool_measurements, "nltk": nltk_measurements}[question.pop("who")]
    print(json.dumps(asked(**question)))


def ask_fresh(who: str, question: dict[str, Any], nltk_data: Path) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(
        fresh("from imgtool.bench.wordnet import child; child()", json.dumps({"who": who, **question}), nltk_data)
    )
    return answer


def fresh(code: str, stdin: str, nltk_data: Path) -> str:
    """Runs code in a new process and returns what it prints."""
    # Caches bytecode, as an installation does, whatever the environment says.
    environment = {**os.environ, "NLTK_DATA": str(nltk_data), "PYTHONPYCACHEPREFIX": str(nltk_data / "compiled")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        input=stdin,
        env=environment,
        capture_output=True,
        text=True,
    )
    if run.returncode:
        raise click.ClickException((run.stderr.strip() or "a measuring process printed nothing").splitlines()[-1])
    return run.stdout


def measure(rounds: int, sample: int, seed: int, wordnet: Path) -> dict[str, Any]:
    """Returns the medians over the rounds for each measurement, in seconds and MiB, and the numbers of each round."""
    import random

    from imgtool.wordnet import load

    draw = random.Random(seed)
    classes = load("in1k")
    question = {
        "names": [synset.name for synset in draw.sample(list(load("full")), 2000)],
        "wnids": classes.wnids,
        "pairs": [(draw.randrange(classes.num_classes), draw.randrange(classes.num_classes)) for _ in range(PAIRS)],
        "sample": sample,
    }
    taken: dict[str, list[dict[str, float]]] = {"ours": [], "nltk": []}
    with tempfile.TemporaryDirectory() as folder:
        try:
            nltk_corpus(Path(folder), wordnet)
        except OSError as error:
            raise click.ClickException(
                f"{error}; give the folder of WordNet 3.0's files with --wordnet (Debian: wordnet-base)"
            ) from error
        fresh("import numpy, click, imgtool.wordnet, nltk.corpus", "", Path(folder))  # compiles the modules
        for _ in range(rounds):
            answers = []
            for who, rows in taken.items():
                answer = ask_fresh(who, question, Path(folder))
                rows.append(answer["measured"])
                answers.append(answer["answers"])
            differing = [row for row in answers[0] if answers[0][row] != answers[1][row]]
            if differing:
                raise click.ClickException(f"the answers of imgtool and NLTK differ: {', '.join(differing)}")
    from imgtool.bench import machine  # imported late, because the measured processes import this module

    medians = {row: {who: statistics.median(r[row] for r in taken[who]) for who in taken} for row in MEASUREMENTS}
    return {
        "bench": "wordnet",
        "machine": machine.describe(),
        "rounds": rounds,
        "seed": seed,
        "nltk_pairs": sample,
        "rows": medians,
        "raw": taken,
    }


def table(result: dict[str, Any]) -> str:
    """Returns the medians as a Markdown table."""
    lines = ["| | | imgtool | NLTK | ratio |", "| --- | --- | ---: | ---: | ---: |"]
    for name, row in MEASUREMENTS.items():
        us, nltk = (result["rows"][name][who] * row.scale for who in ("ours", "nltk"))
        mark = "*" if name in EXTRAPOLATED else ""
        ratio = nltk / max(us, 1e-9)
        lines.append(
            f"| {row.title} | {row.unit} | {us:,.2f} | {nltk:,.1f}{mark} | {ratio:,.{0 if ratio >= 10 else 1}f} |"
        )
    return "\n".join(lines)


@click.command("wordnet", help=__doc__)
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="Processes to take medians of.")
@click.option("--sample", default=500, show_default=True, type=click.IntRange(1, PAIRS), help="Pairs for NLTK.")
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of the random synsets and pairs."
)
@click.option(
    "--wordnet",
    "folder",
    default="/usr/share/wordnet",
    show_default=True,
    type=click.Path(exists=True, file_okay=False),
    help="Folder of WordNet 3.0's files (Debian: wordnet-base).",
)
@json_option
@rehearsal(rounds=1, sample=30)
def main(rounds: int, sample: int, seed: int, folder: str, json_path: Path | None, rehearse: bool) -> None:
    if importlib.util.find_spec("nltk") is None:
        raise click.UsageError("this benchmark compares with NLTK, which is not installed: pip install 'imgtool[nltk]'")
    result = measure(rounds, sample, seed, Path(folder)) | {"rehearsal": rehearse}
    click.echo(table(result))
    click.echo(
        f"\n{result['machine']}; medians of {rounds} rounds, each in a new process with numpy imported. Both give "
        f"the same answers.\n* extrapolated from {sample:,} pairs."
    )
    write_json(json_path, result)
