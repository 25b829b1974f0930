"""What the tests of the configuration share."""

import tempfile
from pathlib import Path
from typing import Any, Final, get_args, get_origin, get_type_hints

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from odingw.config import (
    Config,
    DemoLimits,
    FunctionReference,
    InternalUser,
    Options,
    load,
)
from odingw.errors import ConfigError

SECRET: Final = "hunter2hunter2"


class ConfigCase(SynchronousTestCase):
    """Gives each test a folder of its own."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        # The working directory need not be spelled as the system spells it.
        self.folder = Path(folder.name).resolve()
        self.path = self.folder / "odingw.toml"

    def load_text(self, text: str, options: Options | None = None) -> Config:
        self.path.write_text(text, encoding="utf-8")
        return load(self.path, options)

    def refusal(self, path: Path | None, options: Options | None = None) -> str:
        """The one line with which a configuration is refused."""
        error = self.assertRaises(ConfigError, load, path, options)
        text = str(error)
        self.assertTrue(text.isprintable(), f"not one clean line: {text!r}")
        self.assertNotIn(SECRET, text)
        # A debugger or a log with tracebacks shows the chain too.
        self.assertIsNone(error.__cause__, text)
        self.assertTrue(error.__context__ is None or error.__suppress_context__, text)
        return text


def fields(section: type[msgspec.Struct], at: str) -> dict[str, Any]:
    """Every key of a section and of those inside it, by path, with its default."""
    found = {}
    hints = get_type_hints(section)
    for field in msgspec.structs.fields(section):
        path = f"{at}.{field.name}" if at else field.name
        inner = inner_section(hints[field.name])
        if inner is None:
            found[path] = field.default
        else:
            found |= fields(inner, path)
    return found


def inner_section(hint: Any) -> type[msgspec.Struct] | None:
    """The section that a key of this type holds as a table, or as an array of tables."""
    if get_origin(hint) is tuple:
        hint = get_args(hint)[0]
    for arm in (hint, *get_args(hint)):
        if isinstance(arm, type) and issubclass(arm, msgspec.Struct):
            # A value that is written as text, or as an inline table, is a key like any other.
            return None if arm in (FunctionReference, DemoLimits, InternalUser) else arm
    return None
