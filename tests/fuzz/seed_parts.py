"""What the seeds are made of."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from tests.fuzz.rpc import SERVER

DATA: Final = Path(__file__).parent.parent / "data"

Seeds: TypeAlias = Iterator[bytes]


def as_json(value: object) -> bytes:
    """Return a value as JSON."""
    return json.dumps(value, ensure_ascii=False).encode()


def call(method: object, call_id: object = 1, **params: object) -> dict[str, object]:
    """Return a JSON-RPC call."""
    return {"jsonrpc": "2.0", "method": method, "params": params, "id": call_id}


def members(*changes: dict[str, object]) -> Sequence[dict[str, object]]:
    """Return members of JSON objects, of any types."""
    return changes


def recorded(name: str) -> Iterator[dict[str, Any]]:
    """What was sent in the recordings of one file."""
    for line in (DATA / f"{name}.jsonl").read_text("utf-8").splitlines():
        for step in json.loads(line)["steps"]:
            yield step["send"]


def distinct(texts: Iterator[str], most: int) -> Iterator[str]:
    """Of texts that look alike, one."""
    found: dict[str, str] = {}
    for text in texts:
        shape = "".join(sorted(set(text)))
        found.setdefault(shape, text)
    yield from sorted(found.values(), key=len)[:most]


def report_call(
    *rooms: tuple[str, float], server: str = SERVER, **more: object
) -> dict[str, object]:
    """Return a server's report of rooms, each with its number of peers."""
    listed = [
        {
            "id": ["acme", name],
            "customer": "acme",
            "age": {"secs": 1, "nanos": 0},
            "peers": peers,
        }
        for name, peers in rooms
    ]
    params = {"public_endpoint": server, "version": "1.5.0", "load": 0.1, "clients": 1}
    return call("sfu.Report", **{**params, "rooms": listed, **more})
