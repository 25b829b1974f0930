"""JSON-RPC 2.0: bytes in, calls to methods, bytes out; no I/O.

A method is a plain function or returns an awaitable; the engine answers at once if it can, and with
a coroutine otherwise. The calls of a batch are carried out one after the other, in order, and
others get their turn in between.
"""

import itertools
from collections.abc import Awaitable, Callable, Container, Iterator
from functools import cache
from typing import Any, Final, Generic, TypeAlias, TypeGuard, TypeVar

from msgspec import UNSET, Raw, Struct, UnsetType, ValidationError, defstruct
from msgspec.json import Decoder, Encoder
from msgspec.structs import astuple

from odingw.documents import (
    MARK,
    LoneSurrogate,
    in_ascii,
    is_unicode,
    lone_surrogate,
    unmarked,
    whole,
)
from odingw.errors import (
    HTTP_STATUS,
    INTERNAL_ERROR,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    NOT_JSON,
    PARSE_ERROR,
    TOO_LARGE,
    RpcError,
    invalid_params,
)
from odingw.rpc.details import readable

C = TypeVar("C")
P = TypeVar("P")

Id: TypeAlias = str | int | None
Eventual: TypeAlias = Any
"""What a method returns: its result, or an awaitable of it."""


class Reply(Struct, frozen=True):
    """What goes back over HTTP.

    Attributes:
        status: HTTP status.
        body: JSON text; None where nothing is to be said (only notifications came).
        headers: headers that an error asks for.
    """

    status: int
    body: bytes | None
    headers: dict[str, str] = {}


class Method(Generic[C]):
    """A method that can be called.

    Args:
        params: type of the parameters, a msgspec struct; unknown members are ignored.
        run: called with the context, the parameters, and whether anybody hears the result.
    """

    __slots__ = ("_decoder", "run")

    def __init__(self, params: type[P], run: Callable[[C, P, bool], Eventual]) -> None:
        self._decoder = Decoder(params)
        self.run: Callable[[C, Any, bool], Eventual] = run

    def read(self, params: Raw) -> Any:
        """Read the parameters.

        Raises:
            RpcError: they are wrong ("Invalid params", or "Parse error" if they are not JSON).
        """
        try:
            return self._decoder.decode(params)
        except ValidationError as error:
            raise invalid_params(readable(error, "params")) from None
        except NOT_JSON:
            raise _unreadable(b'{"params":%b}' % params)[0] from None


class _Envelope(Struct, frozen=True, gc=False):
    jsonrpc: Any = None
    method: Any = None
    params: Raw = Raw(b"{}")
    id: Any = UNSET


class _Success(Struct, frozen=True, gc=False):
    result: Any
    id: Id
    jsonrpc: str = "2.0"


class _ErrorObject(Struct, frozen=True, gc=False):
    code: int
    message: str
    data: dict[str, Any] | UnsetType = UNSET


class _Failure(Struct, frozen=True, gc=False):
    error: _ErrorObject
    id: Id
    jsonrpc: str = "2.0"


STEP: Final = 0.005
"""Seconds of work on one batch after which others get their turn."""

MAX_REPLY: Final = 16 * 2**20
"""Bytes of replies after which the rest of a batch is not carried out."""

_LONGEST_SEARCHED: Final = 2**20
"""Bytes of a request that are looked through for what is wrong; of more, it takes too long."""

_LONG: Final = 1000
"""A batch that may be longer is read as a list."""

_ENVELOPE: Final = Decoder(_Envelope)
_ANY: Final = Decoder(Any)
_encode: Final = Encoder().encode

_TOO_MUCH: Final[frozenset[str]] = frozenset()
"""What may be called when the replies of a batch are too large already: nothing."""

_Answer: TypeAlias = _Success | _Failure | None


def _failure(error: RpcError, call_id: Id) -> _Failure:
    return _Failure(_ErrorObject(error.code, error.message, error.data or UNSET), call_id)


def error_reply(error: RpcError) -> Reply:
    """Return the reply to a request of which nothing but this error can be said."""
    return Reply(error.status, _encode(_failure(error, None)), error.headers)


def _half(text: bytes) -> LoneSurrogate | None:
    return lone_surrogate(text) if len(text) <= _LONGEST_SEARCHED else None


def _unreadable(text: bytes) -> tuple[RpcError, Id]:
    """Return what is wrong with a request that msgspec cannot read, and the id of its call."""
    half = _half(text)
    if half is None:
        return RpcError(PARSE_ERROR, "Parse error"), None
    call_id = half.document.get("id") if isinstance(half.document, dict) else None
    if isinstance(call_id, str) and not is_unicode(call_id):
        call_id = None
    if half.member == "params" or half.member.startswith(("params.", "params[")):
        return invalid_params(str(half).removeprefix("params.")), _own_id(call_id)
    return RpcError(INVALID_REQUEST, "Invalid Request", {"detail": str(half)}), _own_id(call_id)


def _own_id(value: object) -> Id:
    """Return the id of a call; None: it is null, or none that JSON-RPC has."""
    value = whole(value)
    # A bool is an int to Python.
    return value if type(value) is str or type(value) is int else None


def _invalid_request() -> RpcError:
    return RpcError(INVALID_REQUEST, "Invalid Request")


class Turns(Struct, frozen=True):
    """How the work on a batch lets others get their turn.

    Attributes:
        clock: tells how many seconds this thread has worked.
        pause: what it returns is done when others have had their turn.
    """

    clock: Callable[[], float]
    pause: Callable[[], Awaitable[object]]


class Engine(Generic[C]):
    """Carries out calls.

    Args:
        methods: by name; names are matched exactly.
        batch: how many calls one request may hold.
        on_outcome: told of every call of a known method: its name, and ``success``, ``rejected``
            (a rule or a right forbids it) or ``failure``.
        on_crash: told of an exception that no method should raise.
        turns: lets others get their turn between the calls of a batch; None: there are none.
    """

    def __init__(
        self,
        methods: dict[str, Method[C]],
        batch: int,
        on_outcome: Callable[[str, str], None],
        on_crash: Callable[[str, Exception], None],
        turns: Turns | None = None,
    ) -> None:
        self._methods = methods
        self._batch = batch
        self._on_outcome = on_outcome
        self._on_crash = on_crash
        self._turns = turns
        self._read_batch = _batch_decoder(batch).decode

    def handle(
        self, body: bytes, context: C, allowed: Container[str] | None = None
    ) -> Reply | Awaitable[Reply]:
        """Answer one request.

        Args:
            body: a call or a batch of calls, JSON.
            context: given to the methods.
            allowed: the methods that may be called; others do not exist. None: all.
        """
        try:
            envelope = _ENVELOPE.decode(body)
        except ValidationError:
            return self._handle_other(body, context, allowed)
        except NOT_JSON:
            if body.startswith(MARK) and not body.startswith(MARK, len(MARK)):
                return self.handle(unmarked(body), context, allowed)
            return _single(_failure(*_unreadable(body)))
        answer = self._call(envelope, context, allowed)
        if answer is None or isinstance(answer, _Success | _Failure):
            return _single(answer)
        return _single_later(answer)

    def _handle_other(
        self, body: bytes, context: C, allowed: Container[str] | None
    ) -> Reply | Awaitable[Reply]:
        try:
            parts = self._parts_of(body)
        except ValidationError:
            try:
                _ANY.decode(body)
            except NOT_JSON:
                return error_reply(_unreadable(body)[0])
            return error_reply(_invalid_request())
        except NOT_JSON:
            return error_reply(_unreadable(body)[0])
        if not parts:
            return error_reply(_invalid_request())
        if len(parts) > self._batch:
            return error_reply(RpcError(TOO_LARGE, f"a batch holds at most {self._batch} calls"))
        return self._handle_batch(parts, context, allowed)

    def _parts_of(self, body: bytes) -> list[Raw]:
        """Take a batch apart; one call with half a surrogate pair in it does not spoil the others.

        Raises:
            NOT_JSON: it is no batch.
        """
        try:
            return list(_parts(self._read_batch(body)))
        except ValidationError:
            raise
        except NOT_JSON:
            half = _half(body)
            if half is None or not isinstance(half.document, list):
                raise
            return in_ascii(half.document[: self._batch + 1])

    async def _handle_batch(
        self, parts: list[Raw], context: C, allowed: Container[str] | None
    ) -> Reply:
        answers: list[bytes] = []
        size = 0
        turns = self._turns
        began = turns.clock() if turns else 0.0
        for part in parts:
            if turns and turns.clock() - began > STEP:
                await turns.pause()
                began = turns.clock()
            try:
                envelope = _ENVELOPE.decode(part)
                answer = self._call(envelope, context, allowed if size < MAX_REPLY else _TOO_MUCH)
                if is_eventual(answer):
                    answer = await answer
            except NOT_JSON:
                error, call_id = _unreadable(bytes(part))
                if error.code == PARSE_ERROR:
                    error = _invalid_request()
                answer = _failure(error, call_id)
            if answer is not None:
                answers.append(_encode(answer))
                size += len(answers[-1])
        return Reply(200, b"[%b]" % b",".join(answers)) if answers else Reply(204, None)

    def _call(
        self, envelope: _Envelope, context: C, allowed: Container[str] | None
    ) -> _Answer | Awaitable[_Answer]:
        name, call_id = envelope.method, envelope.id
        answered = call_id is not UNSET
        if not (call_id is None or type(call_id) is str or type(call_id) is int):
            call_id = _own_id(call_id)
            if answered and call_id is None:
                return _failure(_invalid_request(), None)
        if envelope.jsonrpc != "2.0" or type(name) is not str:
            return _failure(_invalid_request(), call_id)
        method = self._methods.get(name)
        if method is None or (allowed is not None and name not in allowed):
            if allowed is _TOO_MUCH:
                error = RpcError(TOO_LARGE, f"a batch is answered with at most {MAX_REPLY} bytes")
            elif method is None:
                error = RpcError(METHOD_NOT_FOUND, "Method not found")
            else:
                detail = "the claim sub of the token does not name this method"
                error = RpcError(METHOD_NOT_FOUND, "Method not found", {"detail": detail})
            return _failure(error, call_id) if answered else None
        try:
            result = method.run(context, method.read(envelope.params), answered)
        except Exception as error:
            return self._failed(name, error, call_id, answered)
        if is_eventual(result):
            return self._later(name, result, call_id, answered)
        self._on_outcome(name, "success")
        return _Success(result, call_id) if answered else None

    async def _later(
        self, name: str, result: Awaitable[Any], call_id: Id, answered: bool
    ) -> _Answer:
        try:
            value = await result
        except Exception as error:
            return self._failed(name, error, call_id, answered)
        self._on_outcome(name, "success")
        return _Success(value, call_id) if answered else None

    def _failed(self, name: str, error: Exception, call_id: Id, answered: bool) -> _Answer:
        if isinstance(error, RpcError):
            self._on_outcome(name, "rejected" if error.rejects else "failure")
        else:
            self._on_crash(name, error)
            self._on_outcome(name, "failure")
            error = RpcError(INTERNAL_ERROR, "Internal error")
        return _failure(error, call_id) if answered else None


@cache
def _batch_decoder(most: int) -> Decoder[Any]:
    """Return what reads a batch; one of more calls has one member more than ``most``.

    An array read as a struct: what is beyond its last field is skipped at once. Of a list, the
    length would be known when eight megabytes of ones had become four million objects.
    """
    if most > _LONG:
        return Decoder(list[Raw])
    fields = [(f"call_{number}", Raw | UnsetType, UNSET) for number in range(most + 1)]
    return Decoder(defstruct("_Batch", fields, array_like=True))


def _parts(batch: Any) -> Iterator[Raw]:
    members = batch if isinstance(batch, list) else astuple(batch)
    return itertools.takewhile(lambda member: member is not UNSET, members)


def is_eventual(value: Any) -> TypeGuard[Awaitable[Any]]:
    """Tell whether this is to be awaited: a coroutine, a Deferred."""
    return hasattr(value, "__await__")


def _single(answer: _Answer) -> Reply:
    if answer is None:
        return Reply(204, None)
    if isinstance(answer, _Success):
        return Reply(200, _encode(answer))
    return Reply(HTTP_STATUS.get(answer.error.code, 200), _encode(answer))


async def _single_later(answer: Awaitable[_Answer]) -> Reply:
    return _single(await answer)
