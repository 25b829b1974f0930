"""JSON-RPC: what clients and servers send, carried out on a grid of its own."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from odingw.grid.values import GridSettings
from odingw.rpc.callers import Caller
from odingw.rpc.client_api import ClientApi, ClientCall, ClientHooks
from odingw.rpc.grid_config import recommended
from odingw.rpc.jsonrpc import Engine, Method, Reply
from odingw.rpc.server_api import ServerApi, ServerCall, ServerRules
from odingw.rpc.server_keys import ServerKeys
from odingw.state.memory import MemoryStore
from odingw.tokens import Claims
from tests.fuzz.oracle import BATCH, check_answers
from tests.grid_books import check_books, check_usage
from tests.grids import Room, report

SERVER: Final = "sfu1.test:4433"
MASTER_KEY: Final = b"This is a super secret master key!"
KEYS: Final = ServerKeys(MASTER_KEY)
METHODS: Final = ("Connect", "RoomClose", "RoomUpdate", "RoomBanClient", "RoomSendMessage")
SETTINGS: Final = GridSettings(queued_tasks=6, bans_per_customer=3)

_CALLER: Final = Caller(
    kid="k",
    customer="acme",
    namespace="acme",
    max_peers=5,
    max_rooms=3,
    methods=frozenset(METHODS),
    claims=Claims(rid=("room", "other"), uid="user"),
    user="user",
    rooms=("room", "room"),
    token_id="t",
    relaxed=(),
)
_RULES: Final = ServerRules(
    settings=recommended(5, "0.0.0.0/0", {}), rooms_per_report=40, config_size=4096
)


def ignore(*_: object) -> None:
    """Do nothing with what is told."""


HOOKS: Final = ClientHooks(ignore, ignore, ignore, ignore)


def new_store() -> MemoryStore:
    """Return a store with one server, which carries a room."""
    store = MemoryStore(SETTINGS, lambda _: 0)
    said = replace(report(SERVER, Room(("acme", "room"), 2)), kid=KEYS[SERVER].kid)
    store.pool("").report(said, 0.0)
    store.tick(0.0)
    return store


def settled(answer: Reply | Awaitable[Reply]) -> Reply:
    """Return an answer that needs nothing from outside."""
    if isinstance(answer, Reply):
        return answer

    async def wait() -> Reply:
        return await answer

    got: list[Any] = []
    Deferred.fromCoroutine(wait()).addBoth(got.append)
    if isinstance(got[0], Failure):
        got[0].raiseException()
    reply: Reply = got[0]
    return reply


class _Crashes:
    """Keeps exceptions that no method should raise."""

    def __init__(self) -> None:
        self.first: Exception | None = None

    def __call__(self, method: str, error: Exception) -> None:
        self.first = self.first or error

    def check(self) -> None:
        """Raise the first of them."""
        if self.first is not None:
            raise self.first


def _engine(methods: Mapping[str, Method[Any]], crashes: _Crashes) -> Engine[Any]:
    return Engine(dict(methods), BATCH, ignore, crashes)


def client_call(data: bytes) -> None:
    """The body of a request to the client API."""
    store, crashes = new_store(), _Crashes()
    api = ClientApi(store.pool(""), KEYS, 300, "exact", HOOKS)
    call = ClientCall(_CALLER, 1.0, 1_700_000_000.0)
    reply = settled(_engine(api.methods, crashes).handle(data, call, METHODS))
    crashes.check()
    check_answers(data, reply, METHODS)
    _check(store)


async def _here(work: Callable[[], str]) -> str:
    return work()


def server_calls(data: bytes) -> None:
    """Bodies of requests to the server API, one after the other, with NUL bytes between them."""
    store, crashes = new_store(), _Crashes()
    grid = store.pool("")
    api = ServerApi(grid, KEYS, _RULES, _here, ignore, list)
    engine = _engine(api.methods, crashes)
    for number, body in enumerate(data.split(b"\0")[:8]):
        call = ServerCall("127.0.0.1", None, float(number))
        reply = settled(engine.handle(body, call))
        crashes.check()
        answers = check_answers(body, reply, api.methods)
        _check_no_secrets(answers)
        _check(store)
        for delivery in call.deliveries:
            (grid.give_back if number % 2 else grid.acknowledge)(delivery)
        store.tick(float(number))
        _check(store)


def _check(store: MemoryStore) -> None:
    check_usage(store)
    for _, grid in store.pools():
        check_books(grid)


def _check_no_secrets(answers: list[Any]) -> None:
    """A private key goes into a configuration and nowhere else."""
    for answer in answers:
        result = answer.get("result", {})
        assert "config" in result or '"d"' not in str(answer).replace("'", '"')
