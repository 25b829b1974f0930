"""What JSON-RPC 2.0 says of a request and its answer, worked out once more, by Python's json."""

import json
from collections.abc import Container, Mapping, Sequence
from enum import Enum
from typing import Any, Final, NoReturn, TypeAlias

from odingw.documents import unmarked
from odingw.errors import HTTP_STATUS, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR, TOO_LARGE
from odingw.rpc.jsonrpc import Reply

BATCH: Final = 8
"""How many calls a batch may hold here; few, so that the fuzzer finds the limit."""

NOBODY: Final = object()
"""The id of a call that nobody hears the answer of."""

Expected: TypeAlias = tuple[object, frozenset[int] | None]
"""The id of an answer, and the codes that it may have; None: any, or a result."""


class NotJson(Enum):
    """Why there is no value."""

    NO = "it is none"
    MAYBE = "parsers may differ: half surrogates, numbers out of range, bytes that are no UTF-8"


class _DoubtError(Exception):
    """A parser may take it or not."""


def _number(text: str) -> int:
    if len(text) > 300:
        raise _DoubtError
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if abs(value) == float("inf") or len(text) > 300:
        raise _DoubtError
    return value


def _constant(text: str) -> NoReturn:
    raise ValueError(text)


def _text_is_sure(value: object) -> bool:
    """Whether no text in a value holds half of a surrogate pair."""
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= each <= "\udfff" for each in value)
    if isinstance(value, dict):
        return all(_text_is_sure(key) and _text_is_sure(each) for key, each in value.items())
    return not isinstance(value, list) or all(map(_text_is_sure, value))


def parsed(body: bytes) -> Any:
    """Return what a JSON text says, or a `NotJson`."""
    try:
        value = json.loads(
            unmarked(body).decode(), parse_int=_number, parse_float=_float, parse_constant=_constant
        )
        return value if _text_is_sure(value) else NotJson.MAYBE
    except (_DoubtError, RecursionError, UnicodeDecodeError):
        return NotJson.MAYBE
    except ValueError:
        return NotJson.NO


def check_answers(body: bytes, reply: Reply, methods: Container[str]) -> list[Any]:
    """Check a reply against its request; return the answers in it."""
    answers = _answers(reply)
    value = parsed(body)
    if value is NotJson.MAYBE:
        return answers
    if value is NotJson.NO:
        _check_single(answers, reply, PARSE_ERROR)
    elif isinstance(value, dict):
        _check_each([_expected(value, methods)], answers)
    elif not isinstance(value, list) or not value:
        _check_single(answers, reply, INVALID_REQUEST)
    elif len(value) > BATCH:
        _check_single(answers, reply, TOO_LARGE)
    else:
        assert isinstance(json.loads(reply.body or b"[]"), list), "a batch is answered with a batch"
        _check_each([_expected(call, methods) for call in value], answers)
    return answers


def _answers(reply: Reply) -> list[Any]:
    """The answers of a reply, each well-formed, and the status right."""
    if reply.body is None:
        assert reply.status == 204
        return []
    value = json.loads(reply.body.decode(), parse_constant=_constant)
    assert value, "an empty batch is no answer"
    answers = value if isinstance(value, list) else [value]
    for answer in answers:
        _check_answer(answer)
    if isinstance(value, list):
        assert reply.status == 200
    else:
        code = value.get("error", {}).get("code")
        assert reply.status == HTTP_STATUS.get(code, 200), f"{reply.status} for {code}"
    return answers


def _check_answer(answer: Any) -> None:
    """JSON-RPC 2.0, section 5."""
    assert isinstance(answer, dict)
    assert answer["jsonrpc"] == "2.0"
    assert isinstance(answer["id"], str | int | None)
    assert not isinstance(answer["id"], bool)
    assert answer.keys() in ({"jsonrpc", "id", "result"}, {"jsonrpc", "id", "error"})
    if "error" in answer:
        error = answer["error"]
        assert error.keys() <= {"code", "message", "data"}
        assert type(error["code"]) is int
        assert isinstance(error["message"], str)
        assert error["message"]
        assert error["message"].isprintable()
        assert error["code"] != -32603, "an internal error"
        detail = error.get("data", {}).get("detail", "x")
        assert detail
        assert "\n" not in detail


def _check_single(answers: list[Any], reply: Reply, code: int) -> None:
    assert isinstance(json.loads(reply.body or b"[]"), dict), "no batch can be answered"
    assert answers[0]["id"] is None
    assert answers[0]["error"]["code"] == code


def _expected(call: object, methods: Container[str]) -> Expected:
    """What must come of a call."""
    refused = frozenset({INVALID_REQUEST})
    if not isinstance(call, Mapping):
        return None, refused
    call_id = call.get("id", NOBODY)
    if isinstance(call_id, float) and call_id.is_integer():
        call_id = int(call_id)
    known = call_id is NOBODY or call_id is None or type(call_id) in (int, str)
    method = call.get("method")
    if call.get("jsonrpc") != "2.0" or not isinstance(method, str) or not known:
        return (call_id if known and call_id is not NOBODY else None), refused
    return call_id, None if method in methods else frozenset({METHOD_NOT_FOUND})


def _check_each(expected: Sequence[Expected], answers: list[Any]) -> None:
    heard = [one for one in expected if one[0] is not NOBODY]
    assert len(heard) == len(answers), f"{len(answers)} answers instead of {len(heard)}"
    for (call_id, codes), answer in zip(heard, answers, strict=True):
        assert (type(call_id), call_id) == (type(answer["id"]), answer["id"])
        code = answer.get("error", {}).get("code")
        if codes is None:
            assert code != METHOD_NOT_FOUND, f"{answer} for a method that there is"
        else:
            assert code in codes, f"{answer} instead of {set(codes)}"
