"""A gateway, servers and clients, all on this machine: ``python -m odingw.sim.demo``."""

import argparse
import random
import secrets
import socket
import sys
from base64 import b64encode
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from shlex import quote
from typing import Any, Final

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.web.client import Agent

from odingw.errors import OdingwError
from odingw.sim.child import GatewayProcess
from odingw.sim.clock import sleep
from odingw.sim.console import log_warnings, run, say
from odingw.sim.fleet import Fleet
from odingw.sim.http import TRANSPORT_ERRORS, read_body
from odingw.sim.wire import Unreachable
from odingw.tokens import AccessKey, TokenGenerator

FIRST_PORT: Final = 7000
CUSTOMER: Final = "demo"
ROOM: Final = "lobby"
SERVERS: Final = 3
CAPACITY: Final = 100

_LOOPBACK: Final = "127.0.0.1"
_DAY: Final = 86400
_TERMINAL_PATIENCE: Final = 1.0
_STATUS_INTERVAL: Final = 30.0
_READY_WITHIN: Final = 30.0

_CONFIG: Final = """\
# Made anew by each start of the demo; nothing here is worth keeping.

[listen]
public = ["tcp:{port}:interface={host}"]
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
        title: what it is.
        text: an address, a command.
    """

    title: str
    text: str


def free_ports(first: int) -> int:
    """Return the first of two adjacent TCP ports on loopback that are free.

    Raises:
        OSError: there are none.
    """
    for port in count(first, 2):
        if port + 1 > 65535:
            raise OSError(f"no two free ports from {first} on")
        if _is_free(port) and _is_free(port + 1):
            return port
    raise AssertionError("count() does not end")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the gateway will: a port whose last connections only linger is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_LOOPBACK, port))
        except OSError:
            return False
    return True


def write_config(folder: Path, port: int, access_key: AccessKey) -> Path:
    """Write the gateway's configuration where only this user can read it.

    Args:
        folder: is made if it does not exist.
        port: of the public endpoint; the admin endpoint gets the next one.
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
            master_key=b64encode(secrets.token_bytes(32)).decode(),
            turn_secret=secrets.token_urlsafe(24),
            customer=CUSTOMER,
            kid=jwk.kid,
            x=jwk.x,
        )
    )
    return path


def entries(port: int, access_key: AccessKey, now: float) -> list[Entry]:
    """Return what there is to try out.

    Args:
        port: of the public endpoint.
        access_key: the customer's.
        now: unix seconds; the tokens in the commands are good for a day from then.
    """
    url, admin = f"http://{_LOOPBACK}:{port}/", f"http://{_LOOPBACK}:{port + 1}"
    generator = TokenGenerator(access_key)
    token = generator.create_token(ROOM, "you", now=now, lifetime=_DAY)
    turn = generator.create_token(ROOM, "you", now=now, lifetime=_DAY, subject="turn")
    call = '{"jsonrpc":"2.0","method":"Connect","params":{},"id":1}'
    connect = (
        f"curl -sS {url} -H {quote('Authorization: Bearer ' + token)} "
        f"-H 'Content-Type: application/json' -d {quote(call)}"
    )
    return [
        Entry("Gateway", url),
        Entry("Status page", f"{admin}/monitor"),
        Entry("Metrics", f"{admin}/metrics"),
        Entry(f'Access key of customer "{CUSTOMER}", good until the demo ends', access_key.text),
        Entry(f'Let a user into room "{ROOM}" (the token is good for a day)', connect),
        Entry(
            "See which server it is and what the room token says: put this behind that command",
            f"| {quote(sys.executable)} -c {quote(_DECODE)}",
        ),
        Entry(
            "Get TURN credentials (another token, that names turn)",
            f"curl -sS {url}turn -H {quote('Authorization: Bearer ' + turn)}",
        ),
    ]


def _show(found: Sequence[Entry]) -> None:
    lines = ["", "=== odingw demo ==="]
    for entry in found:
        lines += ["", f"{entry.title}:", f"    {entry.text}"]
    lines += ["", "Ctrl-C stops everything.", ""]
    say("\n".join(lines))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; it ends the process where that is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m odingw.sim.demo",
        description="Run a gateway, simulated servers and clients on this machine.",
    )
    add = parser.add_argument
    add("--folder", metavar="PATH", type=Path, default=Path("var/demo"), help="default: var/demo")
    add("--port", metavar="P", type=int, help="and the next one; default: 7000, or what is free")
    add("--rate", metavar="R", type=float, default=2.0, help="clients per second, default: 2")
    add("--stay", metavar="S", type=float, default=60.0, help="mean stay, default: 60")
    add("--duration", metavar="S", type=float, help="stop after this time; default: Ctrl-C")
    options = parser.parse_args(arguments)
    for name in ("rate", "stay"):
        if getattr(options, name) <= 0:
            parser.error(f"--{name} must be above 0")
    return options


async def demo(reactor: Any, options: argparse.Namespace) -> None:
    """Run until the time is over, the gateway dies, or the coroutine is cancelled.

    Raises:
        SystemExit: with status 1 if something went wrong.
    """
    access_key = AccessKey.generate(secrets.token_bytes)
    trouble: list[str] = []

    def died(how: str) -> None:
        trouble.append(how)
        work.cancel()

    try:
        port = options.port or free_ports(FIRST_PORT)
        child = GatewayProcess(reactor, write_config(options.folder, port, access_key), died)
    except OSError as error:
        say(f"odingw demo: {error}")
        raise SystemExit(1) from None
    addresses = [f"sfu-{number + 1}.demo:4433" for number in range(SERVERS)]
    fleet = Fleet(reactor, f"http://{_LOOPBACK}:{port}/", addresses, CAPACITY)
    work = Deferred.fromCoroutine(_work(reactor, options, port, access_key, fleet))
    interrupted = False
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
        say(f"odingw demo: {'; '.join(trouble)}")
        raise SystemExit(1)
    say(
        f"odingw demo: stopped; {fleet.crowd.statistics.summary() if fleet.crowd else 'no clients'}"
    )


async def _work(
    reactor: Any, options: argparse.Namespace, port: int, access_key: AccessKey, fleet: Fleet
) -> None:
    await _until_ready(reactor, f"http://{_LOOPBACK}:{port}/ping")
    await fleet.start(spread=1.0)
    fleet.bring_crowd(
        access_key,
        rate=options.rate,
        rooms=[ROOM, *(f"room-{number + 1}" for number in range(20))],
        mean_stay=options.stay,
        rng=random.Random(),
        persistent=False,
    )
    _show(entries(port, access_key, reactor.seconds()))
    await fleet.watch(say, _STATUS_INTERVAL, options.duration)


async def _until_ready(reactor: Any, url: str) -> None:
    """Wait until the gateway answers.

    Raises:
        Unreachable: it takes too long.
    """
    agent = Agent(reactor, connectTimeout=1.0)
    give_up = reactor.seconds() + _READY_WITHIN
    while reactor.seconds() < give_up:
        try:
            response = await agent.request(b"GET", url.encode())
            await read_body(response)
        except TRANSPORT_ERRORS:
            pass
        else:
            if response.code == 200:
                return
        await sleep(reactor, 0.1)
    raise Unreachable(f"the gateway does not answer at {url} within {_READY_WITHIN:g} s")


def main() -> None:
    """Run the command."""
    options = parse()
    log_warnings()
    run(lambda reactor: demo(reactor, options))


if __name__ == "__main__":
    main()
