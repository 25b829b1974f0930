"""OpenAPI 3.1 documents: what an endpoint serves over HTTP, by the routes that it really has.

A route without an entry here is left out of the document; a test finds it. What the two JSON-RPC
APIs take and return is said by their OpenRPC documents.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec import Struct

from odingw.errors import HTTP_STATUS
from odingw.ops.health import Check
from odingw.rpc.openrpc import API_VERSION, ERROR_CODES, SCHEMAS, schemas_of
from odingw.web.clients import LATEST, VERSIONS
from odingw.web.openapi_admin import ADMIN_TYPES, admin_operations, admin_schemas
from odingw.web.openapi_parts import (
    HTML,
    JAVASCRIPT,
    REFUSES,
    TEXT,
    Apis,
    Operation,
    errors,
    json_answer,
    operation,
    query,
    reference,
    text_answer,
)

_UNSEEN: Final = frozenset(("HEAD",))
_PREFLIGHT: Final = operation(
    "Answer a browser's question about CORS.", {"200": {"description": "CORS headers."}}
)
_AUTHORIZED: Final[list[dict[str, list[str]]]] = [{"bearer": []}, {"jwt": []}]
_BASIC: Final[list[dict[str, list[str]]]] = [{"basic": []}, {}]


class Route(Struct, frozen=True):
    """A path, and an HTTP method that it knows."""

    path: str
    method: str


def routes_of(url_map: Any) -> list[Route]:
    """Return the routes of a Klein app, by its ``url_map``."""
    return sorted(
        (
            Route(rule.rule, method)
            for rule in url_map.iter_rules()
            if not rule.endpoint.startswith(REFUSES)
            for method in set(rule.methods or ()) - _UNSEEN
        ),
        key=lambda route: (route.path, route.method),
    )


def document(title: str, routes: Iterable[Route], apis: Apis) -> dict[str, Any]:
    """Return the document of an endpoint.

    Args:
        title: of the document.
        routes: what it serves.
        apis: where it serves the JSON-RPC APIs.
    """
    known = _operations(apis)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        found = known.get((route.path, route.method))
        if found is not None:
            item = paths.setdefault(route.path, {})
            item[route.method.lower()] = {
                **found,
                "operationId": _operation_id(route),
            }
    _, types = schemas_of([Check, *ADMIN_TYPES])
    schemas = {**types, **_schemas(), **admin_schemas(types)}
    responses = _responses()
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {"title": title, "version": API_VERSION},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": _used(schemas, [paths, responses]),
            "responses": responses,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "jwt": {"type": "apiKey", "in": "query", "name": "jwt"},
                "basic": {"type": "http", "scheme": "basic"},
            },
        },
    }


def _used(schemas: Mapping[str, Any], users: Any) -> dict[str, Any]:
    """Return the schemas that something refers to, or that these refer to."""
    used: set[str] = set()
    left = _references(users)
    while left:
        used |= left
        left = set().union(*(_references(schemas[name]) for name in left)) - used
    return {name: schema for name, schema in schemas.items() if name in used}


def _references(part: Any) -> set[str]:
    if isinstance(part, list):
        return set().union(*map(_references, part))
    if not isinstance(part, dict):
        return set()
    target = part.get("$ref", "")
    found = {target.removeprefix(SCHEMAS)} if target.startswith(SCHEMAS) else set()
    return found.union(*map(_references, part.values()))


def _operation_id(route: Route) -> str:
    words = "".join(char if char.isalnum() else " " for char in route.path).split()
    slash = "_slash" if route.path.endswith("/") else ""
    return f"{route.method.lower()}_{'_'.join(words) or 'root'}{slash if words else ''}"


def _operations(apis: Apis) -> dict[tuple[str, str], Operation]:
    found = {**_turn(), **_files(), **_descriptions(), **admin_operations()}
    found["/ping", "GET"] = operation("Answer pong.", {"200": text_answer("pong", TEXT)})
    for path in apis.client:
        found[path, "POST"] = _json_rpc(
            "Call the client API; /openrpc.json describes its methods.",
            [{"bearer": []}],
            "Unauthorized",
            "Forbidden",
            "TooManyRequests",
        )
        found[path, "OPTIONS"] = _PREFLIGHT
    for path in apis.server:
        found[path, "POST"] = _json_rpc(
            "Call the server API; /internal/openrpc.json describes its methods.",
            _BASIC,
            "Unauthorized",
            "Forbidden",
        )
        found[path, "OPTIONS"] = operation(
            "Answer without CORS headers: browsers have no business here.",
            {"200": {"description": "Nothing."}},
        )
    return found


def _json_rpc(summary: str, security: list[dict[str, list[str]]], *names: str) -> Operation:
    answers = {
        "200": json_answer("The answer, or those to a batch.", reference("JsonRpcReply")),
        "204": {"description": "Nothing: there were only notifications."},
        **errors("ParseError", *names, "TooLarge", "InternalError"),
    }
    body = {
        "required": True,
        "content": {"application/json": {"schema": reference("JsonRpcRequest")}},
    }
    return operation(summary, answers, security=security, body=body)


def _turn() -> dict[tuple[str, str], Operation]:
    credentials = {
        "200": json_answer("Credentials.", reference("TurnCredentials")),
        "400": json_answer("The ttl cannot be used.", reference("Error")),
        **errors("Unauthorized", "TooManyRequests", "InternalError", "Unavailable"),
    }
    ttl = query(
        "ttl", {"type": "integer", "minimum": 1}, "Seconds, at most those that are configured."
    )
    draft = [
        query("service", {"const": "turn"}, "As draft-uberti-behave-turn-rest-00 has it."),
        query("username", {"type": "string"}, "The user, where no claim of the JWT names one."),
        query("key", {"type": "string"}, "The JWT."),
    ]
    summary = "Return TURN credentials, ready for an RTCPeerConnection."
    found = {
        (path, method): operation(
            summary, credentials, parameters=[ttl, *draft], security=_AUTHORIZED
        )
        for path in ("/turn", "/turn/")
        for method in ("GET", "POST")
    }
    found |= {(path, "OPTIONS"): _PREFLIGHT for path in ("/turn", "/turn/")}
    required = {**draft[0], "required": True}
    found["/", "GET"] = operation(
        "Return TURN credentials, asked for as the draft has it.",
        {**credentials, **errors("MethodNotAllowed")},
        parameters=[required, *draft[1:], ttl],
        security=[*_AUTHORIZED, {}],
    )
    return found


def _files() -> dict[tuple[str, str], Operation]:
    kept = {"304": {"description": "It is the one that the caller has."}}
    listing = {
        "description": "The list, as a page or for programs.",
        "content": {
            HTML: {"schema": {"type": "string"}},
            "application/json": {"schema": reference("ClientFiles")},
        },
    }
    found = {("/clients/", "GET"): operation("List the browser clients.", {"200": listing, **kept})}
    for name in (*VERSIONS, LATEST):
        kind = JAVASCRIPT if name.endswith(".js") else TEXT
        found[f"/clients/{name}", "GET"] = operation(
            f"Return {name}.", {"200": text_answer("The file.", kind), **kept}
        )
    return found


def _descriptions() -> dict[tuple[str, str], Operation]:
    kept = {"304": {"description": "It is the one that the caller has."}}
    whole = {"200": json_answer("The document.", {"type": "object"}), **kept}
    return {
        ("/openapi.json", "GET"): operation("Return this document.", whole),
        ("/openrpc.json", "GET"): operation("Describe the client API (OpenRPC).", whole),
        ("/openrpc.json", "OPTIONS"): _PREFLIGHT,
        ("/internal/openrpc.json", "GET"): operation(
            "Describe the server API (OpenRPC).",
            {**whole, **errors("Unauthorized", "Forbidden")},
            security=_BASIC,
        ),
    }


def _responses() -> dict[str, Any]:
    return {
        name: json_answer(f"{text[:1].upper()}{text[1:]} (code {code}).", reference("Error"))
        for code, (name, text) in ERROR_CODES.items()
        if code in HTTP_STATUS
    }


def _schemas() -> Mapping[str, Any]:
    text, strings = {"type": "string"}, {"type": "array", "items": {"type": "string"}}
    call_id = {"type": ["string", "integer", "null"]}
    error = {
        "type": "object",
        "properties": {
            "code": {"type": "integer"},
            "message": text,
            "data": {
                "type": "object",
                "properties": {
                    "reason": text,
                    "detail": text,
                    "retry_after": {"type": "number", "minimum": 0},
                },
            },
        },
        "required": ["code", "message"],
    }
    version = {"const": "2.0"}
    failure = {
        "type": "object",
        "properties": {"jsonrpc": version, "id": call_id, "error": error},
        "required": ["jsonrpc", "id", "error"],
    }
    success = {
        "type": "object",
        "properties": {"jsonrpc": version, "id": call_id, "result": {}},
        "required": ["jsonrpc", "id", "result"],
    }
    call = {
        "type": "object",
        "properties": {
            "jsonrpc": version,
            "id": call_id,
            "method": text,
            "params": {"type": "object"},
        },
        "required": ["jsonrpc", "method"],
    }
    answer = {"oneOf": [reference("JsonRpcSuccess"), reference("Error")]}
    server = {"urls": strings, "username": text, "credential": text}
    return {
        "Error": failure,
        "JsonRpcSuccess": success,
        "JsonRpcCall": call,
        "JsonRpcRequest": _one_or_many(reference("JsonRpcCall")),
        "JsonRpcReply": _one_or_many(answer),
        "TurnCredentials": {
            "type": "object",
            "properties": {
                "username": text,
                "password": text,
                "ttl": {"type": "integer", "minimum": 1},
                "uris": strings,
                "iceServers": {
                    "type": "array",
                    "items": {"type": "object", "properties": server, "required": ["urls"]},
                },
            },
            "required": ["username", "password", "ttl", "uris", "iceServers"],
        },
        "ClientFiles": {
            "type": "object",
            "properties": {
                "latest": text,
                "files": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "name": text,
                            "bytes": {"type": "integer"},
                            "integrity": text,
                        },
                        "required": ["name", "bytes", "integrity"],
                    },
                },
            },
            "required": ["latest", "files"],
        },
    }


def _one_or_many(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "array", "items": schema, "minItems": 1}]}
