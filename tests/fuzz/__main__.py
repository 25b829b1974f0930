"""Runs targets under atheris, one process each, and prints what came of it; see README.rst."""

import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import click
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from tests.fuzz.targets import CORPUS, FOLDER, FOUND, TARGETS, corpus
from tests.fuzz.words import WORDS
from tests.fuzz.work import Way, ways

_MAX_LENGTH: Final = 8192
_KEPT_LENGTH: Final = 3000
_TIMEOUT: Final = 20
"""Seconds for one input, after which it has hung."""

_MEGABYTES: Final = 2048
_COVERAGE: Final = re.compile(r"cov: (\d+) ft: (\d+) corp: (\d+)/")
_EXECUTIONS: Final = re.compile(r"number_of_executed_units: (\d+)")
_ROOT: Final = FOLDER.parent.parent

GROWN: Final = _ROOT / "var" / "fuzz"
"""Where inputs that reach something new are kept between runs."""

_console = Console()


class Outcome(Struct, frozen=True):
    """What came of one target.

    Attributes:
        executions: how many inputs were tried.
        coverage: how many edges of the code were reached.
        added: inputs that reach what the corpus does not.
        findings: files of inputs that break a promise.
    """

    executions: int
    coverage: int
    added: int
    findings: tuple[Path, ...]


def _start(name: str, arguments: list[str]) -> str:
    """Run a worker to its end; return what it wrote."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.worker", name, *arguments],
        cwd=_ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    return done.stdout


def _fuzz(name: str, seconds: int) -> Outcome:
    """Fuzz one target."""
    found, grown, words = FOUND / name, GROWN / name, GROWN / "words"
    for folder in (found, grown):
        folder.mkdir(parents=True, exist_ok=True)
    before, known = set(found.iterdir()), set(grown.iterdir())
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in WORDS))
    text = _start(
        name,
        [
            f"-max_total_time={seconds}",
            f"-max_len={_MAX_LENGTH}",
            f"-timeout={_TIMEOUT}",
            f"-rss_limit_mb={_MEGABYTES}",
            f"-dict={words}",
            f"-artifact_prefix={found}/",
            "-print_final_stats=1",
            str(grown),
            str(CORPUS / name),
        ],
    )
    findings = tuple(sorted(set(found.iterdir()) - before))
    executions = _EXECUTIONS.findall(text)
    if not executions or findings:
        # Whatever ended it is at the end.
        click.echo(text[-4000:])
    coverage = _COVERAGE.findall(text)
    return Outcome(
        int(executions[-1]) if executions else 0,
        int(coverage[-1][0]) if coverage else 0,
        len(set(grown.iterdir()) - known),
        findings,
    )


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02X}" for byte in word)


def _keep(name: str) -> int:
    """Add to the corpus what takes new ways, the small first; return how many files that are."""
    target, folder = TARGETS[name], _ROOT / "odingw"
    known: set[Way] = set()
    for path in corpus(name):
        known |= ways(partial(target, path.read_bytes()), folder)
    added = 0
    for path in sorted((GROWN / name).iterdir(), key=lambda path: (path.stat().st_size, path.name)):
        data = path.read_bytes()
        taken = ways(partial(target, data), folder)
        if len(data) <= _KEPT_LENGTH and taken - known:
            known |= taken
            added += 1
            (CORPUS / name / path.name[:12]).write_bytes(data)
    return added


def _reproduce(name: str, file: Path) -> None:
    TARGETS[name](file.read_bytes())
    click.echo(f"{name} keeps its promises with {file}")


def _print(outcomes: dict[str, Outcome], seconds: int) -> None:
    table = Table("target", title=f"{datetime.now(UTC):%Y-%m-%d}, {seconds} s each")
    for column in ("executions", "coverage", "new inputs", "findings"):
        table.add_column(column, justify="right")
    for name, one in outcomes.items():
        numbers = (one.executions, one.coverage, one.added, len(one.findings))
        table.add_row(name, *map(str, numbers))
    _console.print(table)
    for name, one in outcomes.items():
        for path in one.findings:
            where = os.path.relpath(path)
            click.echo(f"again: {sys.executable} -m tests.fuzz {name} --once {where}")


@click.command()
@click.option("--seconds", default=60, show_default=True, help="How long each target is fuzzed.")
@click.option("--once", type=click.Path(path_type=Path, exists=True), help="Try this input alone.")
@click.option("--keep", is_flag=True, help="Add new inputs that reach new code to the corpus.")
@click.argument("names", nargs=-1, type=click.Choice(sorted(TARGETS)))
def main(seconds: int, once: Path | None, keep: bool, names: tuple[str, ...]) -> None:
    """Fuzz the targets with these NAMES, or all."""
    if once is not None:
        for name in names:
            _reproduce(name, once)
        return
    outcomes: dict[str, Outcome] = {}
    for name in names or TARGETS:
        one = outcomes[name] = _fuzz(name, seconds)
        click.echo(f"{name}: {one.executions} executions, {len(one.findings)} findings")
        if keep:
            click.echo(f"{name}: {_keep(name)} inputs added to the corpus")
    _print(outcomes, seconds)
    if any(one.findings or not one.executions for one in outcomes.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
