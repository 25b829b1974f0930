"""Imports go one way, and the pure packages do no I/O and read no clock."""

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.sources import PACKAGE, tree, trees

LAYERS = {
    "errors": set[str](),
    "clock": set[str](),
    "file_state": set[str](),
    "files": set[str](),
    "documents": {"errors"},
    "escapes": set[str](),
    "hosts": set[str](),
    "secret_files": {"documents", "escapes", "files"},
    "http_proxies": {"errors", "hosts"},
    "fetch": {"errors", "http_proxies"},
    "tokens": {"documents", "errors"},
    "grid": {"errors"},
    "state": {"config", "files", "grid", "errors", "secret_files"},
    "rpc": {"documents", "grid", "hosts", "tokens", "errors"},
    "config": {"documents", "escapes", "secret_files", "tokens", "errors"},
    "master_key": {"config", "escapes", "secret_files", "tokens", "errors"},
    "customers": {"config", "documents", "tokens", "errors", "fetch", "file_state", "files"},
    "ops": {"escapes", "grid", "rpc", "errors"},
    "turn": {
        "config",
        "documents",
        "escapes",
        "tokens",
        "hosts",
        "rpc",
        "errors",
        "file_state",
        "fetch",
        "http_proxies",
        "secret_files",
    },
    "web": {
        "config",
        "documents",
        "rpc",
        "turn",
        "ops",
        "grid",
        "tokens",
        "errors",
        "file_state",
        "files",
        "secret_files",
    },
    "client": {"documents", "tokens", "errors"},
    "sim": {"client", "escapes", "tokens", "errors"},
    "cli": {
        "client",
        "config",
        "customers",
        "documents",
        "errors",
        "escapes",
        "files",
        "grid",
        "master_key",
        "options",
        "secret_files",
        "sim",
        "stores",
        "tap",
        "tokens",
        "turn",
    },
}
"""What each part may import of the others; ``gateway`` and ``tap`` put everything together."""

FREE = {"gateway", "key_files", "listeners", "options", "ports", "stores", "tap"}
PURE = {"tokens", "grid", "rpc"}
IMPURE = ("klein", "os", "random", "secrets", "time", "twisted", "treq")


def modules() -> Iterator[tuple[str, Path]]:
    """Yield each module's part and file."""
    for path in trees():
        parts = path.relative_to(PACKAGE).parts
        yield parts[0].removesuffix(".py"), path


def imports(path: Path) -> Iterator[str]:
    """Yield the full names of what a module imports."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


class ArrowTests(SynchronousTestCase):
    def test_imports_go_down(self) -> None:
        wrong = []
        for part, path in modules():
            if part in FREE or part == "__init__":
                continue
            for name in imports(path):
                root, _, rest = name.partition(".")
                target = rest.partition(".")[0]
                known = (PACKAGE / target).is_dir() or (PACKAGE / f"{target}.py").exists()
                if root != "odingw" or not rest or not known:
                    continue
                if target != part and target not in LAYERS[part]:
                    wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
        self.assertEqual([], wrong)

    def test_every_part_has_its_place(self) -> None:
        parts = {part for part, _ in modules()} - {"__init__"}
        self.assertEqual(parts, LAYERS.keys() | FREE)

    def test_pure_parts_do_nothing_outside(self) -> None:
        wrong = [
            f"{path.relative_to(PACKAGE)} imports {name}"
            for part, path in modules()
            if part in PURE
            for name in imports(path)
            if name.partition(".")[0] in IMPURE
        ]
        self.assertEqual([], wrong)

    def test_only_tap_takes_the_reactor(self) -> None:
        takers = {
            str(path.relative_to(PACKAGE))
            for _, path in modules()
            if "twisted.internet.reactor" in imports(path)
        }
        self.assertEqual({"tap.py"}, takers)
