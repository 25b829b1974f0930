"""OpenRPC documents, made from what carries out the calls: types, method tables, error codes.

An :class:`Interface` lists an API's methods once. The table that the engine looks names up in and
the document that ``rpc.discover`` answers with both come from it, so neither can have a method
that the other has not. The format is https://spec.open-rpc.org, 1.3.2.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw, Struct

from odingw.errors import (
    FORBIDDEN,
    HEADERS_TOO_LARGE,
    HTTP_STATUS,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_ALLOWED,
    METHOD_NOT_FOUND,
    NOT_FOUND,
    PARSE_ERROR,
    TOO_LARGE,
    TOO_MANY_REQUESTS,
    UNAUTHORIZED,
    UNAVAILABLE,
    URI_TOO_LONG,
    Reason,
    Refused,
)
from odingw.rpc.jsonrpc import Method

C = TypeVar("C")

DISCOVER: Final = "rpc.discover"
"""The method that returns the document; whoever may call any method may call it."""

API_VERSION: Final = "0.18"
"""The version of the wire protocol; that of the program is nobody's business outside."""

META_SCHEMA: Final = "https://raw.githubusercontent.com/open-rpc/meta-schema/master/schema.json"
"""What the result of ``rpc.discover`` is known by."""

_OPENRPC: Final = "1.3.2"
SCHEMAS: Final = "#/components/schemas/"
"""Where schemas are in a document."""

_ERRORS: Final = "#/components/errors/"

ERROR_CODES: Final[dict[int, tuple[str, str]]] = {
    PARSE_ERROR: ("ParseError", "the request is not JSON"),
    INVALID_REQUEST: ("InvalidRequest", "the request is no call of JSON-RPC 2.0"),
    METHOD_NOT_FOUND: ("MethodNotFound", "no such method, or the token does not name it"),
    INVALID_PARAMS: ("InvalidParams", "wrong params; data.detail names the field in one line"),
    INTERNAL_ERROR: ("InternalError", "the gateway failed; its log says how"),
    UNAUTHORIZED: ("Unauthorized", "credentials are missing or not good"),
    FORBIDDEN: ("Forbidden", "the caller may not do this"),
    NOT_FOUND: ("NotFound", "there is no such path"),
    METHOD_NOT_ALLOWED: ("MethodNotAllowed", "the path does not know the HTTP method"),
    TOO_LARGE: ("TooLarge", "the request, or a batch, is larger than allowed"),
    URI_TOO_LONG: ("UriTooLong", "the request line is longer than allowed"),
    TOO_MANY_REQUESTS: ("TooManyRequests", "too many requests; data.retry_after is in seconds"),
    HEADERS_TOO_LARGE: ("HeadersTooLarge", "the headers are longer than allowed"),
    UNAVAILABLE: ("Unavailable", "not configured, or not possible now"),
}
"""A name and a description of each code that is not a domain error's alone."""


CALL_ERRORS: Final = (
    PARSE_ERROR,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    INVALID_PARAMS,
    INTERNAL_ERROR,
    UNAUTHORIZED,
    FORBIDDEN,
    TOO_LARGE,
)
"""What a call of any method may be answered with."""


class Signature(Struct, frozen=True, kw_only=True):
    """What a method takes and returns.

    Attributes:
        params: a msgspec struct.
        read_as: what they are read as, where not all of it is read at once; None: params.
        result: type of the result.
        summary: what the method does, in a line.
        reasons: with which it may be refused.
    """

    params: type
    read_as: type | None = None
    result: Any
    summary: str
    reasons: Sequence[Reason] = ()


class NoParams(Struct, frozen=True):
    """The params of a method that needs none."""


class Interface:
    """The methods of one API.

    Args:
        title: of the document.
        description: likewise.
        path: where the API is served.
        signatures: of the methods, by name.
        codes: further error codes that every method may answer with.
    """

    def __init__(
        self,
        title: str,
        description: str,
        path: str,
        signatures: Mapping[str, Signature],
        codes: Sequence[int] = (),
    ) -> None:
        self.signatures: Mapping[str, Signature] = {
            **signatures,
            DISCOVER: Signature(
                params=NoParams, result=Any, summary="Return this document (OpenRPC)."
            ),
        }
        self._title = title
        self._description = description
        self._path = path
        self._codes = (*CALL_ERRORS, *codes)

    def bind(self, handlers: Mapping[str, Callable[[C, Any, bool], Any]]) -> dict[str, Method[C]]:
        """Return the table of an engine.

        Args:
            handlers: what carries out each method.

        Raises:
            ValueError: a method has no handler, or a handler no signature.
        """
        all_handlers = {**handlers, DISCOVER: lambda context, params, answered: Raw(self.document)}
        if all_handlers.keys() != self.signatures.keys():
            wrong = sorted(all_handlers.keys() ^ self.signatures.keys())
            raise ValueError(f"methods without a handler or a signature: {', '.join(wrong)}")
        return {
            name: Method(signature.read_as or signature.params, all_handlers[name])
            for name, signature in self.signatures.items()
        }

    @cached_property
    def document(self) -> bytes:
        """The OpenRPC document, JSON. It is made when it is first asked for."""
        schemas = _Schemas(self.signatures.values())
        return msgspec.json.encode(
            {
                "openrpc": _OPENRPC,
                "info": {
                    "title": self._title,
                    "description": self._description,
                    "version": API_VERSION,
                },
                "servers": [{"name": "gateway", "url": self._path}],
                "methods": [
                    self._method(name, signature, schemas)
                    for name, signature in self.signatures.items()
                ],
                "components": {"schemas": schemas.components, "errors": _error_objects()},
            }
        )

    def _method(self, name: str, signature: Signature, schemas: "_Schemas") -> dict[str, Any]:
        params = schemas.components[type_name(signature.params)]
        described: dict[str, Any] = {
            "name": name,
            "summary": signature.summary,
            "paramStructure": "by-name",
            "params": [
                {"name": field, "required": field in params.get("required", ()), "schema": schema}
                for field, schema in params["properties"].items()
            ],
            "result": {
                "name": "OpenRPC" if name == DISCOVER else f"{name}Result",
                "schema": {"$ref": META_SCHEMA}
                if name == DISCOVER
                else schemas.reference(signature.result),
            },
            "errors": _without((), self._codes),
        }
        if signature.reasons:
            refusals = [refusal(reason) for reason in signature.reasons]
            errors = _without(refusals, self._codes) + _grouped(refusals)
            described |= {"errors": errors, "x-reasons": refusals}
        return described


def refusal(reason: Reason) -> dict[str, Any]:
    """Return what a refused call is answered with."""
    error = Refused(reason)
    return {"reason": str(reason), "code": error.code, "message": error.message}


def _without(refusals: Sequence[Mapping[str, Any]], codes: Sequence[int]) -> list[dict[str, Any]]:
    """Return references to codes, without those that refusals have too."""
    taken = {item["code"] for item in refusals}
    return [{"$ref": _ERRORS + ERROR_CODES[code][0]} for code in codes if code not in taken]


def _grouped(refusals: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one error object for each code: they are unique within a method."""
    codes = dict.fromkeys(item["code"] for item in refusals)
    return [_refused(code, [item for item in refusals if item["code"] == code]) for code in codes]


def _refused(code: int, refusals: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the error object of a code that several reasons share; its data is a JSON Schema."""
    return {
        "code": code,
        "message": "; or ".join(item["message"] for item in refusals),
        "data": {
            "type": "object",
            "properties": {
                "reason": {"enum": [item["reason"] for item in refusals]},
                "retry_after": {
                    "description": "Seconds after which another try may succeed.",
                    "type": "number",
                    "minimum": 0,
                },
            },
            "required": ["reason"],
        },
    }


def _error_objects() -> dict[str, Any]:
    return {
        name: {"code": code, "message": f"{text} (HTTP status {HTTP_STATUS.get(code, 200)})"}
        for code, (name, text) in ERROR_CODES.items()
    }


def type_name(kind: type) -> str:
    """Return the name of a type in the document."""
    return kind.__name__.lstrip("_")


class _Schemas:
    """JSON Schemas of all types that some methods take or return.

    Attributes:
        components: by name.
    """

    def __init__(self, signatures: Any) -> None:
        types = [kind for one in signatures for kind in (one.params, one.result) if kind is not Any]
        references, self.components = schemas_of(types)
        self._references = dict(zip(types, references, strict=True))

    def reference(self, kind: Any) -> dict[str, Any]:
        """Return a schema that refers to a type's."""
        found: dict[str, Any] = self._references[kind]
        return found


def schemas_of(types: Sequence[Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return JSON Schemas of types, which hold by draft 7 and by draft 2020-12 alike.

    Args:
        types: what msgspec can describe.

    Returns:
        A schema of each, and the components that these refer to, by name.
    """
    found, components = msgspec.json.schema_components(types, ref_template=f"{SCHEMAS}{{name}}")
    plain = {name.lstrip("_"): _portable(schema) for name, schema in components.items()}
    if len(plain) != len(components):
        raise ValueError("two types have the same name")
    return [_portable(schema) for schema in found], plain


def _portable(schema: Any) -> Any:
    """Return a schema without what drafts differ in, and without private names."""
    if isinstance(schema, list):
        return [_portable(item) for item in schema]
    if isinstance(schema, str):
        return schema.replace(f"{SCHEMAS}_", SCHEMAS)
    if not isinstance(schema, dict):
        return schema
    members = {key: _portable(value) for key, value in schema.items()}
    tuple_items = members.pop("prefixItems", None)
    if isinstance(tuple_items, list):
        # A tuple is written otherwise in each draft. Its length is given besides.
        kinds = [item for at, item in enumerate(tuple_items) if item not in tuple_items[:at]]
        members["items"] = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    title = members.get("title")
    if isinstance(title, str):
        members["title"] = title.lstrip("_")
    return members
