"""A gateway, servers and clients, all on this machine."""

import errno
import random
import secrets
import socket
import sys
from base64 import b64encode
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from shlex import quote
from typing import Any, Final, NoReturn

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError
from twisted.web.client import Agent
from twisted.web.http_headers import Headers

from odingw.errors import OdingwError
from odingw.sim.child import GatewayProcess
from odingw.sim.clock import sleep
from odingw.sim.console import say
from odingw.sim.fleet import Fleet
from odingw.sim.http import TRANSPORT_ERRORS, Requester, read_body
from odingw.sim.wire import Unreachable
from odingw.tokens import AccessKey, TokenGenerator

FIRST_PORT: Final = 7000
PORTS: Final = 3
"""Public, admin and internal, in this order."""

CUSTOMER: Final = "demo"
ROOM: Final = "lobby"
SERVERS: Final = 3
CAPACITY: Final = 100

_LOOPBACK: Final = "127.0.0.1"
_DAY: Final = 86400
_TERMINAL_PATIENCE: Final = 1.0
_STATUS_INTERVAL: Final = 30.0
_READY_WITHIN: Final = 30.0
_ANSWER_WITHIN: Final = 2.0
_NOT_YET: Final[tuple[type[Exception], ...]] = (Unreachable, *TRANSPORT_ERRORS)

_CONFIG: Final = """\
# Made anew by each start of the demo; nothing here is worth keeping.

[listen]
public = ["tcp:{port}:interface={host}"]
internal = ["tcp:{internal_port}:interface={host}"]
admin = ["tcp:{admin_port}:interface={host}"]

[state]
url = "memory:"

[turn]
# The demo starts no TURN server: these credentials are for a coturn with this secret at this place.
secret_keys = ["{turn_secret}"]
turn_uris = ["turn:{host}:3478"]
access_keys = true
user_claim = "uid"
watch_servers = false

[gateway]
master_key = "{master_key}"

[[gateway.customers]]
id = "{customer}"
max_peers = 250
max_rooms = 50

[[gateway.customers.access_keys]]
public_key = {{ kid = "{kid}", kty = "OKP", crv = "Ed25519", x = "{x}" }}
"""

_DECODE: Final = (
    "import base64, json, sys; "
    'result = json.load(sys.stdin)["result"]; '
    'claims = base64.urlsafe_b64decode(result["token"].split(".")[1] + "=="); '
    'print(result["address"], claims.decode())'
)


class Entry(msgspec.Struct, frozen=True):
    """Something to try out.

    Attributes:
        name: what programs call it.
        title: what it is.
        text: an address, a command.
    """

    name: str
    title: str
    text: str


class Plan(msgspec.Struct, frozen=True):
    """How the demo runs.

    Attributes:
        folder: for the gateway's configuration, which is in a folder that the port names.
        port: of the gateway; the next ones are those of the admin endpoint and of ``/internal``.
            None: what is free.
        rate: clients per second.
        stay: seconds that a client stays, on average.
        duration: seconds after which to stop; None: when interrupted.
        command: how the ``odingw`` command is called in this environment.
        quiet: leave standard output to others: the gateway's log goes to standard error.
    """

    folder: Path
    port: int | None
    rate: float
    stay: float
    duration: float | None
    command: str
    quiet: bool = False


class DemoFailed(OdingwError):  # noqa: N818  -- it reads as what happened
    """The demo could not start, or something broke; the text says what."""


def free_ports(first: int) -> int:
    """Return the first of ``PORTS`` adjacent TCP ports on loopback that are free.

    Raises:
        OSError: there are none.
    """
    for port in count(first, PORTS):
        if port + PORTS > 65536:
            raise OSError(f"no {PORTS} free ports from {first} on")
        if _taken(port) is None:
            return port
    raise AssertionError("count() does not end")


def _taken(first: int) -> int | None:
    """Return the first port that is taken of those that a demo needs; None: all are free."""
    return next((port for port in range(first, first + PORTS) if not _is_free(port)), None)


def _is_free(port: int) -> bool:
    """Whether nobody listens there; what else may be wrong with a port, the gateway says."""
    with socket.socket() as probe:
        # As the gateway will: a port whose last connections only linger is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_LOOPBACK, port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def choose_port(wanted: int | None, status: Callable[[str], None]) -> int:
    """Return the first of ``PORTS`` free ports.

    Raises:
        DemoFailed: the wanted one, or one of the next, is taken.
        OSError: there are none.
    """
    first = FIRST_PORT if wanted is None else wanted
    taken = _taken(first)
    if taken is None:
        return first
    if wanted is not None:
        raise DemoFailed(f"port {taken} is taken; leave --port out, or choose another")
    port = free_ports(FIRST_PORT)
    status(f"{taken} is taken, so this one listens on {port}")
    return port


def write_config(folder: Path, port: int, access_key: AccessKey) -> Path:
    """Write the gateway's configuration where only this user can read it.

    Args:
        folder: is made if it does not exist.
        port: of the public endpoint; the others get the next ones.
        access_key: of the one customer; its secret is not written.

    Returns:
        The file.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    path = folder.resolve() / "odingw.toml"
    path.touch(mode=0o600)
    path.chmod(0o600)
    jwk = access_key.public_jwk()
    path.write_text(
        _CONFIG.format(
            host=_LOOPBACK,
            port=port,
            admin_port=port + 1,
            internal_port=port + 2,
            master_key=b64encode(secrets.token_bytes(32)).decode(),
            turn_secret=secrets.token_urlsafe(24),
            customer=CUSTOMER,
            kid=jwk.kid,
            x=jwk.x,
        )
    )
    return path


def entries(port: int, access_key: AccessKey, now: float, command: str) -> list[Entry]:
    """Return what there is to try out.

    Args:
        port: of the public endpoint.
        access_key: the customer's.
        command: how the ``odingw`` command is called.
        now: unix seconds; the tokens in the commands are good for a day from then.
    """
    url, admin = f"http://{_LOOPBACK}:{port}/", f"http://{_LOOPBACK}:{port + 1}"
    internal = f"http://{_LOOPBACK}:{port + 2}/internal"
    generator = TokenGenerator(access_key)
    token = generator.create_token(ROOM, "you", now=now, lifetime=_DAY)
    turn = generator.create_token(ROOM, "you", now=now, lifetime=_DAY, subject="turn")
    call = '{"jsonrpc":"2.0","method":"Connect","params":{},"id":1}'
    connect = (
        f"curl -sS {url} -H {quote('Authorization: Bearer ' + token)} "
        f"-H 'Content-Type: application/json' -d {quote(call)}"
    )
    secret = f"ODINGW_ACCESS_KEY={access_key.text}"
    return [
        Entry("url", "Gateway", url),
        Entry("internal", "Server API, which ODIN servers on this machine would call", internal),
        Entry("monitor", "Status page", f"{admin}/monitor"),
        Entry("metrics", "Metrics", f"{admin}/metrics"),
        Entry("top", "Watch it from another terminal", f"{command} top --admin {admin}"),
        Entry(
            "access_key",
            f'Access key of customer "{CUSTOMER}", good until the demo ends',
            access_key.text,
        ),
        Entry(
            "call",
            f'Let a user into room "{ROOM}"',
            f"{secret} {command} call Connect --url {url} --room {ROOM} --user you",
        ),
        Entry("connect", "The same with curl (the token is good for a day)", connect),
        Entry(
            "decode",
            "See which server it is and what the room token says: add this at that command's end",
            # The one-file program is no Python.
            f"| {'python3' if getattr(sys, 'frozen', False) else quote(sys.executable)} "
            f"-c {quote(_DECODE)}",
        ),
        Entry(
            "turn",
            "Get TURN credentials (another token, that names turn); "
            "no TURN server runs behind these credentials, the demo starts none",
            f"curl -sS {url}turn -H {quote('Authorization: Bearer ' + turn)}",
        ),
    ]


def show(found: Sequence[Entry]) -> None:
    """Print what there is to try out, for people."""
    lines = ["", "=== odingw demo ==="]
    for entry in found:
        lines += ["", f"{entry.title}:", f"    {entry.text}"]
    lines += ["", "Ctrl-C stops everything.", ""]
    say("\n".join(lines))


async def demo(
    reactor: Any, plan: Plan, tell: Callable[[list[Entry]], None], status: Callable[[str], None]
) -> str:
    """Run until the time is over, the gateway dies, or the coroutine is cancelled.

    Args:
        reactor: a Twisted reactor.
        plan: how it runs.
        tell: takes what there is to try out, once it is there.
        status: takes one line now and then.

    Returns:
        What happened, one line.

    Raises:
        DemoFailed: something went wrong.
    """
    access_key = AccessKey.generate(secrets.token_bytes)
    trouble: list[str] = []

    interrupted = False

    def died(how: str) -> None:
        # A Ctrl-C, and other signals to all that runs here, may reach the gateway first.
        if not interrupted and not child.interrupted:
            trouble.append(how)
        work.cancel()

    try:
        port = choose_port(plan.port, status)
        config = write_config(plan.folder / str(port), port, access_key)
        child = GatewayProcess(reactor, config, died, plan.quiet)
    except OSError as error:
        raise DemoFailed(str(error)) from None
    addresses = [f"sfu-{number + 1}.demo:4433" for number in range(SERVERS)]
    url, servers_url = (f"http://{_LOOPBACK}:{number}/" for number in (port, port + 2))
    fleet = Fleet(reactor, url, addresses, CAPACITY, servers_url)

    def ready() -> None:
        tell(entries(port, access_key, reactor.seconds(), plan.command))

    work = Deferred.fromCoroutine(_work(reactor, plan, port, access_key, fleet, ready, status))
    try:
        await work
    except CancelledError:
        interrupted = True
    except OdingwError as error:
        trouble.append(str(error))
    finally:
        await fleet.stop()
        await child.stop(_TERMINAL_PATIENCE if interrupted else 0)
    if fleet.misbehaviours:
        trouble.append(f"the gateway broke the wire reference {fleet.misbehaviours} times")
    if trouble:
        raise DemoFailed("; ".join(trouble))
    return fleet.crowd.statistics.summary() if fleet.crowd else "no clients"


async def _work(
    reactor: Any,
    plan: Plan,
    port: int,
    access_key: AccessKey,
    fleet: Fleet,
    ready: Callable[[], None],
    status: Callable[[str], None],
) -> None:
    await _until_ready(reactor, f"http://{_LOOPBACK}:{port}/", access_key)
    await fleet.start(spread=1.0)
    fleet.bring_crowd(
        access_key,
        rate=plan.rate,
        rooms=[ROOM, *(f"room-{number + 1}" for number in range(20))],
        mean_stay=plan.stay,
        rng=random.Random(),
        persistent=False,
    )
    ready()
    await fleet.watch(status, _STATUS_INTERVAL, plan.duration)


async def _until_ready(reactor: Any, url: str, access_key: AccessKey) -> None:
    """Wait until the gateway answers that knows this access key: no other one does.

    Raises:
        Unreachable: it takes too long.
    """
    agent = Agent(reactor)
    token = TokenGenerator(access_key).create_token(
        ROOM, "demo", now=reactor.seconds(), lifetime=_DAY, subject="turn"
    )
    give_up = reactor.seconds() + _READY_WITHIN
    while reactor.seconds() < give_up:
        asked = Deferred.fromCoroutine(_ask(agent, f"{url}turn", token))
        try:
            if await asked.addTimeout(_ANSWER_WITHIN, reactor, _late) == 200:
                return
        except _NOT_YET:
            pass
        await sleep(reactor, 0.1)
    raise Unreachable(f"the gateway does not answer at {url} within {_READY_WITHIN:g} s")


def _late(_outcome: object, seconds: float) -> NoReturn:
    raise Unreachable(f"no answer within {seconds:g} s")


async def _ask(agent: Requester, url: str, token: str) -> int:
    """Return the status of the answer.

    Raises:
        CancelledError: it was cancelled; what Twisted's ``Agent`` makes of that looks like any
            other failure.
    """
    try:
        headers = Headers({"Authorization": [f"Bearer {token}"]})
        response = await agent.request(b"GET", url.encode(), headers)
        await read_body(response)
    except TRANSPORT_ERRORS as error:
        reasons = getattr(error, "reasons", ())
        if isinstance(error, ConnectingCancelledError) or any(
            reason.check(CancelledError) for reason in reasons
        ):
            raise CancelledError from None
        raise
    code: int = response.code
    return code
