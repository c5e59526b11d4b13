"""Runs the tests on every supported Python, and with the lowest versions that pyproject.toml allows.

Used by `make test-pythons` and `make test-lowest`. Arguments after ``--`` are passed to pytest. uv links packages from
its cache, so an environment takes little disk space.
"""

import nox

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "uv"
nox.options.error_on_missing_interpreters = True
nox.options.reuse_venv = "yes"

BUILD = nox.project.load_toml("pyproject.toml")["build-system"]["requires"]


@nox.session(python=["3.10", "3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """Tests with the newest release of every dependency for this Python."""
    session.install("--upgrade", "-e", ".[dev]")
    run_pytest(session)


@nox.session(name="tests-lowest", python="3.10")
def tests_lowest(session: nox.Session) -> None:
    """Tests with the lowest release of every direct dependency, build dependencies included, on the lowest Python."""
    lowest = ("--resolution", "lowest-direct", "--upgrade")
    session.install(*lowest, *BUILD)
    session.install(*lowest, "--no-build-isolation", "-e", ".[dev]")
    run_pytest(session)


def run_pytest(session: nox.Session) -> None:
    session.run("pytest", "-q", "-n", "auto", "--dist", "loadfile", *session.posargs)
