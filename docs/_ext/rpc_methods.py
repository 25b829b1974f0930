"""The JSON-RPC methods, from the signatures that carry them out and describe themselves.

``.. rpc-method:: client Connect`` stands for one method; its content is what else is to be said of
it. A method of either API that no page has fails the build.
"""

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    Literal,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec
from docutils import nodes
from error_tables import list_table
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from odingw.rpc.client_api import CLIENT_API, Bytes
from odingw.rpc.openrpc import Signature
from odingw.rpc.server_methods import SERVER_API

_log = logging.getLogger(__name__)

APIS: Final[dict[str, Mapping[str, Signature]]] = {
    "client": CLIENT_API.signatures,
    "server": SERVER_API.signatures,
}


def params(kind: type) -> list[tuple[str, str, bool]]:
    """Return name, type in words, and whether it must be given, of each parameter."""
    hints = get_type_hints(kind, include_extras=True)
    return [
        (field.encode_name, words(hints[field.name]), field.required)
        for field in msgspec.structs.fields(kind)
    ]


def words(hint: Any) -> str:
    """A type, in words."""
    if hint == Bytes:
        return "array of bytes, 0 to 255 each"
    if get_origin(hint) is Annotated:
        inner, *notes = get_args(hint)
        bounds = [note for note in notes if isinstance(note, msgspec.Meta)]
        text = words(inner)
        for meta in bounds:
            if meta.ge is not None:
                text += f", {meta.ge} or more"
            if meta.max_length is not None:
                text += f", at most {meta.max_length} characters"
        return text
    if get_origin(hint) in (Union, UnionType):
        wanted = [arm for arm in get_args(hint) if arm not in (NoneType, msgspec.UnsetType)]
        return " or ".join(map(words, wanted))
    if get_origin(hint) is Literal:
        return " or ".join(f"``{value}``" for value in get_args(hint))
    if get_origin(hint) is list:
        return f"array of {words(get_args(hint)[0])}s"
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return "object"
    return {str: "text", float: "number", int: "whole number", bool: "true or false"}[hint]


class RpcMethod(SphinxDirective):
    """One method: its parameters, and what the page says of it."""

    required_arguments = 2
    has_content = True
    shown: ClassVar[str] = "rpc_methods_shown"

    def run(self) -> list[nodes.Node]:
        """Return the method's section."""
        api, name = self.arguments
        if name not in APIS.get(api, ()):
            raise self.error(f"the {api} API has no method {name}")
        shown: dict[str, set[tuple[str, str]]] = getattr(self.env, self.shown, {})
        shown.setdefault(self.env.docname, set()).add((api, name))
        setattr(self.env, self.shown, shown)
        signature = APIS[api][name]
        rows = [("Parameter", "Type")]
        rows += [
            (f"``{param}``", kind if required else f"{kind}; optional")
            for param, kind, required in params(signature.params)
        ]
        table = list_table("35 65", rows) if len(rows) > 1 else "It has no parameters."
        body = "\n".join(["", signature.summary, "", *self.content.data, "", table, ""])
        if signature.reasons:
            reasons = ", ".join(f"``{reason}``" for reason in signature.reasons)
            body += f"\n:ref:`Reasons <reasons>` to refuse it: {reasons}.\n"
        heading = f".. _{api}-{name.lower()}:\n\n{name}\n{'~' * len(name)}\n"
        return self.parse_text_to_nodes(heading + body, allow_section_headings=True)


def _forget(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    getattr(env, RpcMethod.shown, {}).pop(docname, None)


def _check(app: Sphinx, env: BuildEnvironment) -> None:
    shown = set().union(*getattr(env, RpcMethod.shown, {}).values())
    for api, methods in APIS.items():
        for name in methods:
            if (api, name) not in shown:
                _log.warning("the method %s of the %s API is on no page", name, api)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_directive("rpc-method", RpcMethod)
    app.connect("env-purge-doc", _forget)
    app.connect("env-check-consistency", _check)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
