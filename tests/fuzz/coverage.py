"""Measures which lines of the codec the seed corpus reaches: coverage.py. `make fuzz-coverage` calls it.

Prints each file's coverage, and the lines that are not reached; README.md lists what cannot be. The exit status is 1
below FLOOR.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import corpus
import run

FLOOR = 96.0  # percent of lines


def measure() -> float:
    """Returns the percentage of the codec's lines that the replay of the corpus executes."""
    programs = [run.build("coverage"), run.build("coverage_pool")]
    corpus.draw(run.BUILD / "seeds")
    seeds = sorted((run.BUILD / "seeds").iterdir())
    profiles = [program.with_suffix(".profraw") for program in programs]
    for command, profile in zip(([programs[0], *seeds], [programs[1], "1", *seeds[:30]]), profiles, strict=True):
        subprocess.run(["nice", *command], env={**os.environ, "LLVM_PROFILE_FILE": str(profile)}, check=True)
    merged = run.BUILD / "coverage.profdata"
    subprocess.run(["llvm-profdata", "merge", *profiles, "-o", merged], check=True)
    options = [programs[0], "-object", programs[1], f"-instr-profile={merged}", "-ignore-filename-regex=tests/fuzz"]
    report = subprocess.run(["llvm-cov", "report", *options], check=True, capture_output=True, text=True).stdout
    shown = subprocess.run(["llvm-cov", "show", *options], check=True, capture_output=True, text=True).stdout
    at = ""
    for line in shown.splitlines():
        if line.endswith((".cpp:", ".hpp:")):
            at = Path(line[:-1]).name
        elif re.match(r" *\d+\| +0\|", line):
            print(f"not reached: {at}: {line}")
    print(report)
    lines = next(line for line in report.splitlines() if line.startswith("TOTAL")).split()
    return float(lines[9].rstrip("%"))


if __name__ == "__main__":
    sys.exit(0 if measure() >= FLOOR else 1)
