"""Builds the fuzz targets and runs them one after another: run.py [SECONDS]. `make fuzz` calls it.

Prints the executions of each target. What fails is kept in build/fuzz/found; the exit status is 1 then. The corpus that
libFuzzer grows is kept in build/fuzz/corpus, for the next run to go on from.
"""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import corpus

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NATIVE = ROOT / "pipelines/codec/_native"
BUILD = ROOT / "build/fuzz"
MEMORY = 2048  # MB of a target
CHECKED = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-D_GLIBCXX_ASSERTIONS"]
COVERED = ["-fprofile-instr-generate", "-fcoverage-mapping"]
TARGETS: dict[str, tuple[list[str], float | None]] = {  # flags of the compiler, and each target's part of the time
    "codec": (["-fsanitize=fuzzer", *CHECKED], 0.4),
    "differential": (["-fsanitize=fuzzer"], 0.3),
    "truncate": (CHECKED, 0.15),
    "pool": (["-fsanitize=thread"], 0.15),
    "replay": (CHECKED, 0.0),
    "coverage": (COVERED, None),  # coverage.py
    "coverage_pool": (COVERED, None),
}
MAIN = {"coverage": "replay", "coverage_pool": "pool"}  # targets whose source has another name


def build(target: str) -> Path:
    """Compiles what has changed of a target, and returns the program."""
    program, objects = BUILD / target, BUILD / f"{target}.o"
    objects.mkdir(parents=True, exist_ok=True)
    flags = [*TARGETS[target][0], "-std=c++17", "-O1", "-g", "-fno-omit-frame-pointer", "-ffp-contract=off", "-fwrapv"]
    command = ["nice", "clang++", *flags, "-Wall", "-Wextra", "-Wno-psabi", f"-I{NATIVE}"]
    headers = max(time_of(path) for folder in (NATIVE, HERE) for path in folder.glob("*.hpp"))
    sources = [path for path in sorted(NATIVE.glob("*.cpp")) if path.name not in ("api.cpp", "floor.cpp")]
    made = []
    for source in (*sources, HERE / f"{MAIN.get(target, target)}.cpp"):
        made.append(objects / f"{source.stem}_{source.parent.name}.o")
        if time_of(made[-1]) <= max(time_of(source), headers):
            subprocess.run([*command, "-c", source, "-o", made[-1]], check=True)
    if time_of(program) <= max(map(time_of, made)):
        subprocess.run([*command, *made, "-ljpeg", "-o", program], check=True)
    return program


def time_of(path: Path) -> float:
    return path.stat().st_mtime if path.exists() else 0


def run(target: str, seconds: float) -> tuple[bool, str]:
    """Runs a target for a time; returns whether it found nothing, and a line about it."""
    seeds = sorted((BUILD / "seeds").iterdir())
    found = BUILD / "found"
    found.mkdir(exist_ok=True)
    program = str(BUILD / target)
    if "-fsanitize=fuzzer" in TARGETS[target][0]:
        grown = BUILD / "corpus" / target
        grown.mkdir(parents=True, exist_ok=True)
        options = [f"-max_total_time={round(seconds)}", "-max_len=8192", "-timeout=25", f"-rss_limit_mb={MEMORY}"]
        output = [f"-artifact_prefix={found}/{target}_", "-print_final_stats=1", "-verbosity=0"]
        command = [program, *options, *output, str(grown), str(BUILD / "seeds")]
    elif target == "replay":
        command = [program, *map(str, seeds)]
    else:
        command = [program, str(seconds), *map(str, seeds)]
    done = subprocess.run(["nice", *command], capture_output=True, text=True, errors="replace")
    executions = re.findall(r"number_of_executed_units: (\d+)", done.stderr)
    line = f"{executions[0]} executions" if executions else done.stdout.strip() or f"{len(seeds)} files"
    if done.returncode:
        print(done.stderr[-6000:], file=sys.stderr)
    return done.returncode == 0, f"{target}: {line} in {seconds:.0f} s" + (" FAILED" if done.returncode else "")


def main() -> int:
    parts = {target: part for target, (_, part) in TARGETS.items() if part is not None}
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 90
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(build, parts))
    print(f"{len(corpus.draw(BUILD / 'seeds'))} seeds", flush=True)
    passed = True
    for target, part in parts.items():
        good, line = run(target, seconds * part)
        passed &= good
        print(line, flush=True)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
