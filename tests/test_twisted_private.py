"""What Twisted calls private is used in the open, and a release without it does not start."""

import ast
import importlib
import inspect
import pkgutil
import textwrap
from collections.abc import Iterator
from itertools import product
from types import ModuleType

from twisted.trial.unittest import SynchronousTestCase

import odingw
from odingw.errors import ConfigError
from odingw.options import Options
from odingw.tap import makeService
from odingw.web import twisted_private
from odingw.web.twisted_private import NAMES, check
from tests.sources import trees

OURS = {
    # Of the standard library: documented, or for those who know what they do.
    "_exit",
    "_current_frames",
    "_replace",
}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def relied_on() -> set[str]:
    return {name for names in NAMES.values() for name in names} | {
        path.rpartition(".")[2] for path in NAMES
    }


def modules() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(odingw.__path__, "odingw."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def defined(tree: ast.AST) -> Iterator[str]:
    """Yield the names that a module gives to something of its own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and of_self(node):
            yield node.attr


def of_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id == "self"


def attributes_of_self(kind: type) -> set[str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    return {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and of_self(node)
    }


class CompleteTests(SynchronousTestCase):
    def test_no_other_name_of_others_is_used(self) -> None:
        own = {name for tree in trees().values() for name in defined(tree)}
        known = own | OURS | relied_on()
        wrong = [
            f"{file.name}:{node.lineno}: {node.attr}"
            for file, tree in trees().items()
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in known
        ]
        self.assertEqual([], wrong)

    def test_nothing_private_is_imported_elsewhere(self) -> None:
        wrong = []
        for file, tree in trees().items():
            if file.name == "twisted_private.py":
                continue
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and node.module != "__future__":
                    parts = (node.module or "").split(".") + [each.name for each in node.names]
                    wrong += [f"{file.name}: {part}" for part in parts if is_private(part)]
        self.assertEqual([], wrong)

    def test_what_our_classes_share_with_their_bases_is_in_the_table(self) -> None:
        wrong = set()
        for module in modules():
            for kind in vars(module).values():
                if not inspect.isclass(kind) or kind.__module__ != module.__name__:
                    continue
                bases = [base for base in kind.__mro__ if base.__module__.startswith("twisted.")]
                if not bases:
                    continue
                names = set(filter(is_private, attributes_of_self(kind) | vars(kind).keys()))
                wrong |= {
                    f"{kind.__name__}.{name}"
                    for name, base in product(names - relied_on(), bases)
                    if twisted_private._has(base, name)
                }
        self.assertEqual(set(), wrong)


class CheckTests(SynchronousTestCase):
    def test_this_release_has_them_all(self) -> None:
        check()

    def test_each_that_is_gone_is_named(self) -> None:
        for path, names in NAMES.items():
            for name in names:
                missing = ConfigError
                with self.subTest(path=path, name=name):
                    error = self.assertRaises(missing, check, {path: (*names, f"{name}_gone")})
                    self.assertIn(f"has no {path}.{name}_gone, which", str(error))
                    self.assertRegex(str(error), r"^Twisted \d+\.\d+")
            error = self.assertRaises(ConfigError, check, {f"{path}Gone": names})
            self.assertIn(f"has no {path}Gone, which", str(error))
        error = self.assertRaises(ConfigError, check, {"twisted.web.gone.Gone": ()})
        self.assertIn("twisted.web.gone.Gone", str(error))

    def test_a_start_without_one_fails(self) -> None:
        self.patch(twisted_private, "NAMES", {"twisted.web.http.HTTPChannel": ("_gone",)})
        options = Options()
        options.parseOptions(["--state", "memory:"])
        error = self.assertRaises(SystemExit, makeService, options)
        self.assertIn("odingw: Twisted ", str(error))
        self.assertIn("has no twisted.web.http.HTTPChannel._gone", str(error))
