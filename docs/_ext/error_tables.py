"""Tables of the errors that callers can be given, from ``odingw.errors`` and who raises them."""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import odingw
from odingw.errors import HTTP_STATUS, Reason, Refused
from odingw.rpc.openrpc import ERROR_CODES

PACKAGE: Final = Path(odingw.__file__).parent


def list_table(widths: str, rows: Sequence[tuple[str, ...]]) -> str:
    """A table with a header row, as reStructuredText."""
    lines = [".. list-table::", f"   :widths: {widths}", "   :header-rows: 1", ""]
    for row in rows:
        lines += [f"   {'*' if not index else ' '} - {cell}" for index, cell in enumerate(row)]
    return "\n".join(lines)


def codes() -> Iterator[tuple[int, int, str]]:
    """Yield each JSON-RPC code with its HTTP status and what it means."""
    for code, (_, text) in sorted(ERROR_CODES.items()):
        yield code, HTTP_STATUS.get(code, 200), text


def temporary() -> set[str]:
    """Return the reasons that are raised together with a time after which to try again."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Call(func=ast.Name("Refused"), args=[ast.Attribute(attr=name), _]):
                    found.add(name)
    return {str(Reason[name]) for name in found}


class ErrorCodes(SphinxDirective):
    """The JSON-RPC codes and their HTTP statuses."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        rows = [("Code", "HTTP", "Meaning")]
        rows += [(f"``{code}``", str(status), name) for code, status, name in codes()]
        return self.parse_text_to_nodes(list_table("20 15 65", rows))


class ErrorReasons(SphinxDirective):
    """The reasons of domain errors."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        retried = temporary()
        rows = [("``data.reason``", "Code", "Message", "``retry_after``")]
        for reason in Reason:
            error = Refused(reason)
            may_retry = "yes" if reason in retried else "no"
            rows.append((f"``{reason}``", f"``{error.code}``", error.message, may_retry))
        return self.parse_text_to_nodes(list_table("30 12 43 15", rows))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_directive("error-codes", ErrorCodes)
    app.add_directive("error-reasons", ErrorReasons)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
