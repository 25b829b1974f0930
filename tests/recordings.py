"""Sends recorded requests to a gateway and compares its answers with what is expected."""

import base64
import http.client
import json
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from odingw.tokens import SecretKey


def differences(port: int, file: Path) -> tuple[int, list[str]]:
    """Return how many recorded steps were sent, and what differed from the recordings."""
    steps, found = 0, []
    for line in file.read_text("utf-8").splitlines():
        scenario = json.loads(line)
        room_token: str | None = None
        for step in scenario["steps"]:
            steps += 1
            status, headers, body = send(port, step["send"], room_token)
            found += [f"{scenario['name']}: {text}" for text in _wrong(step, status, headers, body)]
            if b'"token"' in body and body[:1] == b"{":
                room_token = json.loads(body)["result"]["token"]
    return steps, found


def _b64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _unb64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _authorization(auth: dict[str, Any], now: int) -> str:
    claims = {
        name: now + value["$now"] if isinstance(value, dict) and "$now" in value else value
        for name, value in (auth["claims"] or {}).items()
    }
    raw_header, raw_claims = auth.get("raw_header"), auth.get("raw_claims")
    header = _compact(auth["header"]) if raw_header is None else raw_header.encode()
    payload = _compact(claims)
    if raw_claims is not None:
        payload = raw_claims.replace("{{now}}", str(now)).encode()
    signed = f"{_b64url(header)}.{_b64url(payload)}"
    signature = SecretKey(base64.b64decode(auth["seed_b64"])).sign(signed.encode())
    tails = {
        "valid": _b64url(signature),
        "empty": "",
        "zero": _b64url(bytes(64)),
        "flip": _b64url(bytes([signature[0] ^ 1]) + signature[1:]),
        "flip_s": _b64url(signature[:-20] + bytes([signature[-20] ^ 1]) + signature[-19:]),
        "short": _b64url(signature[:63]),
        "long": _b64url(signature + b"\0"),
        "garbage": "!!!not*base64!!!",
        "extra_seg": _b64url(signature) + ".x",
        "std_b64": base64.b64encode(b"\xfb\xff" + signature[2:]).decode(),
    }
    token = signed if auth["sig"] == "missing" else f"{signed}.{tails[auth['sig']]}"
    return f"{auth['scheme']}{token}{auth['suffix']}"


def send(
    port: int, request: dict[str, Any], room_token: str | None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Send a recorded request; ``room_token`` is what it may want to show again."""
    headers = dict(request["headers"] or {})
    if "auth" in request:
        headers["Authorization"] = _authorization(request["auth"], int(time.time()))
    elif request.get("replay_token"):
        headers["Authorization"] = f"Bearer {room_token}"
    body = request.get("body")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        raw = None if body is None else body.encode()
        connection.request(request["method"], request["path"], raw, headers)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def _wrong(
    step: dict[str, Any], status: int, headers: http.client.HTTPMessage, body: bytes
) -> Iterator[str]:
    expect, path = step["expect"], step["send"]["path"]
    if status != expect["status"]:
        yield f"status {status}: {body[:200]!r}"
    if expect.get("empty"):
        if body:
            yield f"body {body[:100]!r}"
    elif "batch" in expect:
        answers = json.loads(body)
        if len(answers) != len(expect["batch"]):
            yield f"batch of {len(answers)}"
        for wanted, answer in zip(expect["batch"], answers, strict=False):
            yield from _wrong_answer(wanted, answer)
    elif "answer" in expect or "error" in expect:
        wanted = expect.get("answer") or {"id": None, "error": expect["error"]}
        yield from _wrong_answer(wanted, json.loads(body))
    needed = {401: "WWW-Authenticate", 405: "Allow"}.get(status)
    if needed and not headers.get(needed):
        yield f"no {needed} header"
    if not path.endswith("/internal") and (
        headers.get("Access-Control-Allow-Origin") != "*"
        or headers.get("Cache-Control") != "no-store"
    ):
        yield "no cross-origin or cache headers"
    if path.endswith("/internal") and headers.get("Access-Control-Allow-Origin"):
        yield "cross-origin headers"


def _wrong_answer(expect: dict[str, Any], answer: Any) -> Iterator[str]:
    if answer.get("jsonrpc") != "2.0" or answer.get("id", "absent") != expect["id"]:
        yield f"not the answer to {expect['id']!r}: {answer}"
    if "error" in expect:
        error, wanted = answer.get("error") or {}, expect["error"]
        if error.get("code") != wanted["code"]:
            yield f"error code {error.get('code')}"
        if error.get("message") != wanted.get("message", error.get("message")):
            yield f"message {error.get('message')!r}"
        if not error.get("message"):
            yield "no message"
    elif "result" not in answer:
        yield f"no result: {answer.get('error')}"
    elif "connect" in expect:
        yield from _wrong_connect(expect["connect"], answer["result"])
    elif "toml" in expect:
        got = _from_toml(tomllib.loads(answer["result"]["config"]))
        if got != expect["toml"]:
            yield f"config {got}"
    elif answer["result"] != expect.get("result", answer["result"]):
        yield f"result {answer['result']}"


def _wrong_connect(want: dict[str, Any], result: dict[str, Any]) -> Iterator[str]:
    header, claims, _ = (result["token"]).split(".")
    got = {"address": result["address"], "header": json.loads(_unb64url(header))}
    decoded = json.loads(_unb64url(claims))
    got["lifetime"] = decoded.pop("exp") - decoded.pop("nbf")
    if "claims" in want:
        got["claims"] = {name: decoded.get(name) for name in want["claims"]}
    if got != want:
        yield f"connect {got}"


def _from_toml(value: Any) -> Any:
    """Write what JSON lacks as ``{"$toml": text}``, as the recordings do."""
    if isinstance(value, dict):
        return {key: _from_toml(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_from_toml(item) for item in value]
    if isinstance(value, float):
        return {"$toml": repr(value)}
    if isinstance(value, str | int):
        return value
    return {"$toml": value.isoformat()}
