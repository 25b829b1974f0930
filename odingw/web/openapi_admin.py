"""What the admin endpoint serves, as operations of an OpenAPI document."""

from collections.abc import Mapping
from typing import Any, Final

from odingw.grid.values import RoomView, ServerView, UsageView
from odingw.ops.health import Check
from odingw.ops.history import HistoryView
from odingw.web.monitor import CustomerView, RequestCount, TurnView
from odingw.web.monitor_rooms import DEEPEST, LONGEST_SEARCH, MOST_ROOMS, RoomsPage
from odingw.web.openapi_parts import (
    HTML,
    JAVASCRIPT,
    TEXT,
    Operation,
    errors,
    json_answer,
    operation,
    query,
    reference,
    text_answer,
)

ADMIN_TYPES: Final = (
    CustomerView,
    HistoryView,
    RequestCount,
    RoomView,
    RoomsPage,
    ServerView,
    TurnView,
    UsageView,
)
"""Types whose schemas the operations refer to."""

_BASIC: Final[list[dict[str, list[str]]]] = [{"basic": []}, {}]
"""Without admin users nobody has to say who they are."""


def admin_operations() -> dict[tuple[str, str], Operation]:
    """Return the operations by path and method."""
    metrics = _look(
        "Return metrics for Prometheus.",
        {
            "description": "Metrics, in the format that Accept asks for.",
            "content": {
                kind: {"schema": {"type": "string"}}
                for kind in (TEXT, "application/openmetrics-text")
            },
        },
    )
    health = reference("Checks")
    readiness = reference("Readiness")
    return {
        ("/metrics", "GET"): metrics,
        ("/monitor/metrics", "GET"): metrics,
        ("/monitor/ping", "GET"): _look("Answer pong.", text_answer("pong", TEXT)),
        ("/monitor/healthcheck", "GET"): _look(
            "Carry out all health checks.",
            json_answer("All are good.", health),
            {"500": json_answer("One is not.", health)},
        ),
        ("/healthz", "GET"): operation(
            "Tell that the process is alive.",
            {
                "200": json_answer("It is.", _object(alive={"const": True})),
                **errors("Forbidden"),
            },
        ),
        ("/readyz", "GET"): operation(
            "Tell whether the gateway should get traffic.",
            {
                "200": json_answer("It should.", readiness),
                "503": json_answer("It should not.", readiness),
                **errors("Forbidden"),
            },
        ),
        ("/monitor/threads", "GET"): _look(
            "Return what every thread is doing.", text_answer("Stacks.", TEXT)
        ),
        **_monitor(),
        ("/monitor/drain", "POST"): _drain("Place no new rooms on a server."),
        ("/monitor/undrain", "POST"): _drain("Place new rooms on a server again."),
    }


def _monitor() -> dict[tuple[str, str], Operation]:
    return {
        ("/monitor", "GET"): _file("Show the status page.", HTML),
        ("/monitor/", "GET"): operation(
            "Lead to the status page.",
            {"308": {"description": "It is at /monitor."}, **errors("Unauthorized", "Forbidden")},
            security=_BASIC,
        ),
        ("/monitor/monitor.css", "GET"): _file("Return the status page's style.", "text/css"),
        ("/monitor/monitor.js", "GET"): _file("Return the status page's script.", JAVASCRIPT),
        ("/monitor/state", "GET"): _look(
            "Return servers, rooms, customers and counts.",
            json_answer("Everything.", reference("State")),
        ),
        ("/monitor/summary", "GET"): _look(
            "Return the same without rooms, in a bounded size.",
            json_answer("A summary.", reference("Summary")),
        ),
        ("/monitor/history", "GET"): _look(
            "Return what was measured in the last 15 minutes.",
            json_answer("The samples.", reference("HistoryView")),
        ),
        ("/monitor/rooms", "GET"): operation(
            "Find rooms.",
            {
                "200": json_answer("Some of them.", reference("RoomsPage")),
                "400": json_answer("The query cannot be used.", reference("Error")),
                **errors("Unauthorized", "Forbidden"),
            },
            parameters=_room_query(),
            security=_BASIC,
        ),
    }


def _look(summary: str, answer: Any, more: Any = None) -> Operation:
    responses = {"200": answer, **(more or {}), **errors("Unauthorized", "Forbidden")}
    return operation(summary, responses, security=_BASIC)


def _file(summary: str, kind: str) -> Operation:
    kept = {"304": {"description": "It is the one that the caller has."}}
    return _look(summary, text_answer("The file.", kind), kept)


def _drain(summary: str) -> Operation:
    text = {"type": "string"}
    return operation(
        summary,
        {
            "200": json_answer("Done.", _object(server=text, drained={"type": "boolean"})),
            "400": json_answer("The body cannot be used.", reference("Error")),
            "404": json_answer("The server is not known.", reference("Error")),
            "409": json_answer("The grid refuses.", reference("Error")),
            "415": json_answer("The body is no application/json.", reference("Error")),
            "503": json_answer("Nothing can be stored now.", reference("Error")),
            **errors("Unauthorized", "Forbidden"),
        },
        security=[{"basic": []}],
        body={
            "description": "Only the status page itself may send it: Origin must be the gateway's.",
            "required": True,
            "content": {"application/json": {"schema": _object(pool=text, server=text)}},
        },
    )


def _room_query() -> list[dict[str, Any]]:
    text = {"type": "string"}
    sorts = {"enum": ["room", "customer", "server", "peers", "reservations"]}
    return [
        query("pool", text, "Only rooms of this pool."),
        query("server", text, "Only rooms on this server."),
        query("search", {**text, "maxLength": LONGEST_SEARCH}, "Part of a name or a customer."),
        query("sort", sorts, "What they are ordered by; peers."),
        query("order", {"enum": ["ascending", "descending"]}, "descending"),
        query("limit", {"type": "integer", "minimum": 1, "maximum": MOST_ROOMS}, "50"),
        query("offset", {"type": "integer", "minimum": 0, "maximum": DEEPEST}, "0"),
    ]


def admin_schemas(types: Mapping[str, Any]) -> dict[str, Any]:
    """Return schemas of what has no type of its own.

    Args:
        types: schemas of what has, by name.
    """
    view = types[ServerView.__name__]
    number, count, flag = {"type": "number"}, {"type": "integer"}, {"type": "boolean"}
    common = {
        "version": {"type": "string"},
        "now": number,
        "uptime": number,
        "ready": flag,
        "checks": reference("Checks"),
        "requests": _list("RequestCount"),
        "turn": reference("TurnView"),
        "customers": _list("CustomerView"),
    }
    servers = {"type": "array", "items": reference("Server")}
    return {
        "Checks": {"type": "object", "additionalProperties": reference(Check.__name__)},
        "Readiness": {
            **_object(ready=flag, checks=reference("Checks")),
            "description": "Without the checks on a port that is public too.",
            "required": ["ready"],
        },
        "Server": {
            **view,
            "description": "A server; age is that of its last report, in seconds.",
            "properties": {**view["properties"], "age": number},
            "required": [*view["required"], "age"],
        },
        "State": _object(
            pools=_map(_object(servers=servers, rooms=_list("RoomView"))),
            usage=_list("UsageView"),
            **common,
        ),
        "Summary": _object(
            pools=_map(_object(servers=servers)), customer_count=count, can_drain=flag, **common
        ),
    }


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _map(schema: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": schema}


def _list(name: str) -> dict[str, Any]:
    return {"type": "array", "items": reference(name)}
