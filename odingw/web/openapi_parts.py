"""Building blocks of OpenAPI documents."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, TypeAlias

from msgspec import Struct

from odingw.errors import HTTP_STATUS
from odingw.rpc.openrpc import ERROR_CODES, SCHEMAS

Operation: TypeAlias = dict[str, Any]

TEXT: Final = "text/plain"
HTML: Final = "text/html"
JAVASCRIPT: Final = "text/javascript"

REFUSES: Final = "refuse "
"""Beginning of the endpoint names of routes that only refuse."""


class Apis(Struct, frozen=True):
    """Where the JSON-RPC APIs are served: the paths of all pools."""

    client: Collection[str] = ()
    server: Collection[str] = ()


def operation(
    summary: str,
    responses: Mapping[str, Any],
    *,
    parameters: Sequence[Mapping[str, Any]] = (),
    security: Sequence[Mapping[str, Sequence[str]]] = (),
    body: Mapping[str, Any] | None = None,
) -> Operation:
    """Return an operation.

    Args:
        summary: what it does, in a line.
        responses: by status.
        parameters: of the query.
        security: ways to say who asks, of which one is needed; empty: nobody has to.
        body: of the request.
    """
    made: Operation = {"summary": summary, "responses": dict(responses)}
    if parameters:
        made["parameters"] = list(parameters)
    if security:
        made["security"] = list(security)
    if body is not None:
        made["requestBody"] = dict(body)
    return made


def reference(name: str) -> dict[str, Any]:
    """Return a schema that is among the components."""
    return {"$ref": f"{SCHEMAS}{name}"}


def json_answer(description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a response that is JSON."""
    return {"description": description, "content": {"application/json": {"schema": dict(schema)}}}


def text_answer(description: str, content_type: str) -> dict[str, Any]:
    """Return a response that is text."""
    return {"description": description, "content": {content_type: {"schema": {"type": "string"}}}}


def query(name: str, schema: Mapping[str, Any], description: str) -> dict[str, Any]:
    """Return a parameter of the query, which may be left out."""
    return {"name": name, "in": "query", "description": description, "schema": dict(schema)}


def errors(*names: str) -> dict[str, Any]:
    """Return the responses of errors, by status, given their names."""
    statuses = {
        name: HTTP_STATUS[code] for code, (name, _) in ERROR_CODES.items() if code in HTTP_STATUS
    }
    return {str(statuses[name]): {"$ref": f"#/components/responses/{name}"} for name in names}
