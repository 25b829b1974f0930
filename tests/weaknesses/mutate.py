"""Takes each defence out of a copy of the project, and sees the test that shows it fail.

``python -m tests.weaknesses.mutate [ID…]`` runs all rows of the table, or those named; it ends with
status 1 if a defence can be taken out unnoticed, or if a row does not fit the source any more.
"""

import ast
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.sources import tree
from tests.weaknesses.rows import Edit, Weakness
from tests.weaknesses.table import TABLE

ROOT: Final = Path(__file__).parent.parent.parent
COPIED: Final = ("odingw", "tests", "twisted", "benchmarks", "etc", "pyproject.toml", "setup.cfg")
LONGEST: Final = 300.0
"""Seconds for one test, at most."""

_TESTS_FAILED: Final = 1
"""pytest's status if tests were run and some failed; others are for what never ran."""


class MisfitError(Exception):
    """A row does not fit the source any more; the text says how."""


def edited(root: Path, edits: Iterable[Edit]) -> dict[str, str]:
    """Return the new text of every file that is edited.

    Raises:
        MisfitError: the text to be replaced is not there exactly once, or what comes out is no
            Python.
    """
    texts: dict[str, str] = {}
    for file, old, new in edits:
        try:
            text = texts.get(file) or (root / file).read_text("utf-8")
        except OSError as error:
            raise MisfitError(f"{file}: {error.strerror}") from None
        count = text.count(old)
        if count != 1:
            raise MisfitError(f"{file}: {old!r} is there {count} times")
        texts[file] = text.replace(old, new)
    for file, text in texts.items():
        try:
            if file.endswith(".py"):
                ast.parse(text)
        except SyntaxError as error:
            raise MisfitError(f"{file}: without the defence: {error}") from None
    return texts


def has_test(root: Path, name: str) -> bool:
    """Tell whether a test, named as pytest does, is there."""
    file, of_class, of_test = name.split("::")
    if not (root / file).is_file():
        return False
    classes = {node.name: node for node in tree(root / file).body if isinstance(node, ast.ClassDef)}
    return of_class in classes and _has(classes, of_class, of_test)


def _has(classes: Mapping[str, ast.ClassDef], name: str, test: str) -> bool:
    """Tell whether a class of a file, or one there that it derives from, has a test."""
    found = classes.get(name)
    if found is None:
        return False
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return any(isinstance(node, functions) and node.name == test for node in found.body) or any(
        isinstance(base, ast.Name) and _has(classes, base.id, test) for base in found.bases
    )


def copy(root: Path, target: Path) -> None:
    """Copy what tests need."""
    skipped = shutil.ignore_patterns("__pycache__", "*.pyc", "dropin.cache")
    for name in COPIED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=skipped)
        else:
            shutil.copy(source, target / name)


def run(root: Path, tests: Sequence[str]) -> tuple[int, str]:
    """Run tests of a copy; return pytest's status and the end of what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
        cwd=root,
        # Ahead of the project itself, also for the programs that tests start.
        env={**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LONGEST * len(tests),
        check=False,
    )
    return done.returncode, done.stdout[-2000:]


def judge(root: Path, row: Weakness) -> str:
    """Take a defence out of a copy, run its test, and put it back; return what is wrong, or ''."""
    try:
        texts = edited(root, row.edits)
    except MisfitError as error:
        return f"does not fit: {error}"
    before = {file: (root / file).read_text("utf-8") for file in texts}
    try:
        for file, text in texts.items():
            (root / file).write_text(text, "utf-8")
        status, said = run(root, [row.test])
    finally:
        for file, text in before.items():
            (root / file).write_text(text, "utf-8")
    if status == _TESTS_FAILED:
        return ""
    return f"status {status} without the defence:\n{said}"


def main(arguments: Sequence[str]) -> int:
    """Run the rows with these names, by default all; return the exit status."""
    unknown = set(arguments) - {row.id for row in TABLE}
    if unknown:
        sys.stderr.write(f"no such row: {', '.join(sorted(unknown))}\n")
        return 2
    rows = [row for row in TABLE if not arguments or row.id in arguments]
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="odingw-mutants-") as folder:
        root = Path(folder)
        copy(ROOT, root)
        status, said = run(root, sorted({row.test for row in rows}))
        if status:
            sys.stderr.write(f"the tests fail as things are:\n{said}\n")
            return 1
        for row in rows:
            trouble = judge(root, row)
            wrong += bool(trouble)
            outcome = f"NOT NOTICED: {trouble}" if trouble else "noticed"
            sys.stdout.write(f"{row.id:24} {row.test.rpartition('::')[2]:75} {outcome}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(rows) - wrong} of {len(rows)} noticed\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
