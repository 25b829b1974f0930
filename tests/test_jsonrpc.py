"""The JSON-RPC engine: bytes in, bytes out."""

import json
from collections.abc import Awaitable, Callable, Container
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from odingw.errors import Reason, Refused, RpcError
from odingw.rpc.jsonrpc import Engine, Method, Reply


class Sum(Struct):
    """Two numbers."""

    a: int
    b: int = 0


class EngineCase(SynchronousTestCase):
    """An engine with a plain, an asynchronous, a refusing and a crashing method."""

    def setUp(self) -> None:
        self.outcomes: list[tuple[str, str]] = []
        self.crashes: list[str] = []
        self.heard: list[bool] = []
        self.order: list[str] = []
        self.pending: list[Deferred[int]] = []
        methods: dict[str, Method[str]] = {
            "add": Method(Sum, self._add),
            "later": Method(Sum, self._later),
            "refuse": Method(Sum, _refuse),
            "crash": Method(Sum, _crash),
        }
        self.engine = Engine(
            methods,
            3,
            lambda *outcome: self.outcomes.append(outcome),
            lambda name, error: self.crashes.append(f"{name}: {error}"),
        )

    def _add(self, context: str, params: Sum, answered: bool) -> int:
        self.order.append(f"add {params.a}")
        self.heard.append(answered)
        return params.a + params.b

    async def _later(self, context: str, params: Sum, answered: bool) -> int:
        pending: Deferred[int] = Deferred()
        self.pending.append(pending)
        result = await pending
        self.order.append(f"later {params.a}")
        return result + params.a

    def ask(self, body: bytes | str | object, allowed: Container[str] | None = None) -> Reply:
        if not isinstance(body, bytes | str):
            body = json.dumps(body)
        raw = body.encode() if isinstance(body, str) else body
        reply = self.engine.handle(raw, "context", allowed)
        if isinstance(reply, Reply):
            return reply
        return self.successResultOf(as_deferred(reply))

    def error(self, body: object, **kwargs: Any) -> tuple[int, object, object]:
        reply = self.ask(body, **kwargs)
        answer = json.loads(reply.body or b"null")
        return reply.status, answer["error"]["code"], answer["id"]


def as_deferred(reply: Awaitable[Reply]) -> Deferred[Reply]:
    async def wait() -> Reply:
        return await reply

    return Deferred.fromCoroutine(wait())


def _refuse(context: str, params: Sum, answered: bool) -> int:
    raise Refused(Reason.NO_SERVER, 5)


def _crash(context: str, params: Sum, answered: bool) -> int:
    raise KeyError("the database password")


def call(method: str = "add", call_id: object = 1, **params: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "method": method, "params": params, "id": call_id}


def note(method: str = "add", **params: object) -> dict[str, object]:
    message = call(method, **params)
    del message["id"]
    return message


class SingleTests(EngineCase):
    def test_a_result(self) -> None:
        reply = self.ask(call(a=2, b=3))
        self.assertEqual({"jsonrpc": "2.0", "result": 5, "id": 1}, json.loads(reply.body or b""))
        self.assertEqual(
            (200, [("add", "success")], [True]), (reply.status, self.outcomes, self.heard)
        )

    def test_ids_come_back(self) -> None:
        ids: tuple[object, ...] = ("", "x", 0, -7, None, 2**70, "ü")
        for call_id in ids:
            answer = json.loads(self.ask(call(call_id=call_id, a=1)).body or b"")
            self.assertEqual(call_id, answer["id"])
        answer = json.loads(
            self.ask('{"jsonrpc":"2.0","method":"add","params":{"a":1},"id":1.0}').body or b""
        )
        self.assertEqual(1, answer["id"])

    def test_ids_of_other_types_are_refused(self) -> None:
        wrong: tuple[object, ...] = (1.5, True, {}, [])
        for call_id in wrong:
            self.assertEqual((200, -32600, None), self.error(call(call_id=call_id, a=1)))
        self.assertEqual([], self.order)

    def test_what_is_not_json(self) -> None:
        for body in (
            "",
            " ",
            "{",
            "nope",
            "{'a':1}",
            "{}{}",
            '{"a":',
            "[1,",
            b"\xff",
            b'"\xff"',
            '{"jsonrpc":"2.0","method":"add","id":1,"params":{"a":1e}}',
            "[" * 100_000,
        ):
            self.assertEqual((400, -32700, None), self.error(body), body[:20])

    def test_what_is_no_request(self) -> None:
        bodies: tuple[object, ...] = (1, True, "text", None, {}, [], {"method": "add"})
        for body in bodies:
            text = json.dumps(body)
            self.assertEqual((200, -32600, None), self.error(text), text)

    def test_a_wrong_envelope_keeps_its_id(self) -> None:
        for change in ({"jsonrpc": "1.0"}, {"jsonrpc": 2.0}, {"method": 1}, {"method": None}):
            self.assertEqual((200, -32600, 7), self.error({**call(call_id=7, a=1), **change}))

    def test_methods_that_do_not_exist(self) -> None:
        for name in ("", "Add", "toString", "__init__", "run"):
            self.assertEqual((200, -32601, 1), self.error(call(name, a=1)))
        self.assertEqual((200, -32601, 1), self.error(call(a=1), allowed=("later",)))
        self.assertEqual([], self.outcomes, "no count for names that callers make up")

    def test_wrong_params_name_the_field(self) -> None:
        for params, detail in (
            ({}, "params: object missing required field `a`"),
            ({"a": "x"}, "a: expected an integer, got text"),
            ([], "params: expected an object, got an array"),
            (None, "params: expected an object, got null"),
            ({"a": 1.5}, "a: expected an integer, got a number"),
        ):
            reply = self.ask({**call(), "params": params})
            error = json.loads(reply.body or b"")["error"]
            self.assertEqual((-32602, "Invalid params"), (error["code"], error["message"]))
            self.assertEqual(detail, error["data"]["detail"])

    def test_params_may_be_absent_and_unknown_ones_are_ignored(self) -> None:
        body = note()
        body["id"] = 1
        del body["params"]
        self.assertEqual((200, -32602, 1), self.error(body))
        self.assertEqual(b'{"result":1,"id":1,"jsonrpc":"2.0"}', self.ask(call(a=1, z=[{}])).body)

    def test_a_refusal_carries_its_reason(self) -> None:
        error = json.loads(self.ask(call("refuse", a=1)).body or b"")["error"]
        self.assertEqual({"reason": "no_server", "retry_after": 5}, error["data"])
        self.assertEqual([("refuse", "rejected")], self.outcomes)

    def test_a_crash_is_told_to_the_log_alone(self) -> None:
        reply = self.ask(call("crash", a=1))
        self.assertEqual(500, reply.status)
        self.assertNotIn(b"password", reply.body or b"")
        self.assertEqual(["crash: 'the database password'"], self.crashes)

    def test_an_asynchronous_method(self) -> None:
        reply = self.engine.handle(json.dumps(call("later", a=1)).encode(), "")
        assert not isinstance(reply, Reply)
        waiting = as_deferred(reply)
        self.assertNoResult(waiting)
        self.pending[0].callback(10)
        self.assertEqual(
            b'{"result":11,"id":1,"jsonrpc":"2.0"}', self.successResultOf(waiting).body
        )

    def test_an_asynchronous_failure(self) -> None:
        reply = self.engine.handle(json.dumps(call("later", a=1)).encode(), "")
        assert not isinstance(reply, Reply)
        waiting = as_deferred(reply)
        self.pending[0].errback(RpcError(-32003, "no"))
        self.assertEqual(403, self.successResultOf(waiting).status)


class NotificationTests(EngineCase):
    def test_nothing_is_answered(self) -> None:
        for method in ("add", "refuse", "crash", "unknown"):
            self.assertEqual(Reply(204, None), self.ask(note(method, a=1)))
        self.assertEqual(Reply(204, None), self.ask(note("add")), "not even wrong params")
        self.assertEqual([False], self.heard)

    def test_a_batch_of_them(self) -> None:
        self.assertEqual(Reply(204, None), self.ask([note(a=1), note(a=2)]))
        self.assertEqual(["add 1", "add 2"], self.order)


class BatchTests(EngineCase):
    def test_answers_in_order_and_notifications_left_out(self) -> None:
        reply = self.ask([call(call_id="x", a=1), note(a=2), 1, [], call("no", call_id=2)])
        self.assertEqual(413, reply.status, "three calls at most")
        reply = self.ask([call(call_id="x", a=1), note(a=2), 1])
        answers = json.loads(reply.body or b"")
        self.assertEqual(["x", None], [answer["id"] for answer in answers])
        self.assertEqual(-32600, answers[1]["error"]["code"])
        reply = self.ask([[], call("refuse", call_id=2, a=1)])
        self.assertEqual([None, 2], [answer["id"] for answer in json.loads(reply.body or b"")])

    def test_one_after_the_other(self) -> None:
        reply = self.engine.handle(json.dumps([call("later", a=1), call(a=2)]).encode(), "")
        assert not isinstance(reply, Reply)
        waiting = as_deferred(reply)
        self.assertEqual([], self.order)
        self.pending[0].callback(0)
        self.successResultOf(waiting)
        self.assertEqual(["later 1", "add 2"], self.order)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
PARTS = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | JSON,
        "method": st.sampled_from(["add", "refuse", "crash", "no"]) | JSON,
        "params": st.fixed_dictionaries({"a": st.integers()}) | JSON,
        "id": JSON,
    },
)


class FuzzTests(EngineCase):
    @given(
        st.binary()
        | (PARTS | st.lists(PARTS, max_size=3) | JSON).map(lambda v: json.dumps(v).encode())
    )
    def test_every_input_has_a_reply(self, body: bytes) -> None:
        check_any(self.ask, body)


def check_any(ask: Callable[[bytes], Reply], body: bytes) -> None:
    """A reply is well formed whatever comes in."""
    reply = ask(body)
    if reply.body is None:
        assert reply.status == 204
        return
    answers = json.loads(reply.body)
    for answer in answers if isinstance(answers, list) else [answers]:
        assert answer["jsonrpc"] == "2.0"
        assert ("result" in answer) != ("error" in answer)
        assert answer["id"] is None or type(answer["id"]) in (str, int)
