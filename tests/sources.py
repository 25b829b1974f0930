"""What tests that read our own code read."""

import ast
from functools import cache
from pathlib import Path

import odingw

PACKAGE = Path(odingw.__file__).parent


@cache
def tree(file: Path) -> ast.Module:
    """Return the syntax tree of a file, for all tests the same one."""
    return ast.parse(file.read_text("utf-8"))


@cache
def trees() -> dict[Path, ast.Module]:
    """Return those of all modules of odingw, by file and in order."""
    return {file: tree(file) for file in sorted(PACKAGE.rglob("*.py"))}
