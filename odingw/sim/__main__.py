"""Simulated servers and clients against a gateway: ``python -m odingw.sim --help``."""

import argparse
import random
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import CancelledError

from odingw.errors import KeyMaterialError, OdingwError
from odingw.sim.console import log_warnings, run, say
from odingw.sim.fleet import Fleet
from odingw.tokens import AccessKey

_DESCRIPTION = """\
Run simulated ODIN servers, and clients if there is an access key, against a gateway. Exits with
status 1 if the servers could not start or the gateway broke the wire reference.
"""


def _access_key(text: str) -> AccessKey:
    try:
        return AccessKey(text)
    except KeyMaterialError as wrong:
        raise argparse.ArgumentTypeError(str(wrong)) from None


def _address_format(text: str) -> str:
    try:
        usable = text.format(1) != text.format(2)
    except (LookupError, ValueError):
        usable = False
    if not usable:
        raise argparse.ArgumentTypeError(f"{text!r} needs one {{}} for the server's number")
    return text


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; it ends the process where that is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m odingw.sim",
        description=_DESCRIPTION,
        epilog="Arguments can come from @FILE too, one per line: no process list shows them.",
        fromfile_prefix_chars="@",
    )
    add = parser.add_argument
    add("--gateway", metavar="URL", required=True, help="http://[user:password@]host:port/[pool/]")
    add("--servers", metavar="N", type=int, default=3, help="default: 3")
    add("--capacity", metavar="PEERS", type=int, default=500, help="of a server, default: 500")
    add(
        "--address-format",
        metavar="FORMAT",
        type=_address_format,
        default="sfu-{}.sim:4433",
        help="addresses of the servers; {} is a number, default: sfu-{}.sim:4433",
    )
    add("--spread", metavar="S", type=float, default=5.0, help="start over this time, default: 5")
    add("--access-key", metavar="KEY", type=_access_key, help="the customer whose clients come")
    add("--rate", metavar="R", type=float, default=10.0, help="clients per second, default: 10")
    add("--rooms", metavar="N", type=int, default=100, help="that they choose from, default: 100")
    add("--stay", metavar="S", type=float, default=60.0, help="mean stay, default: 60")
    add("--keep-alive", action="store_true", help="clients share connections")
    add("--seed", metavar="N", type=int, help="of all chance; default: another one each time")
    add("--duration", metavar="S", type=float, help="stop after this time; default: Ctrl-C")
    add("--status", metavar="S", type=float, default=5.0, help="between status lines, default: 5")
    options = parser.parse_args(arguments)
    for name in ("servers", "capacity", "rate", "rooms", "stay", "status"):
        if getattr(options, name) <= 0:
            parser.error(f"--{name} must be above 0")
    return options


async def simulate(reactor: Any, options: argparse.Namespace) -> None:
    """Run until the time is over or the coroutine is cancelled.

    Raises:
        SystemExit: with status 1, as the description says.
    """
    addresses = [options.address_format.format(number + 1) for number in range(options.servers)]
    try:
        fleet = Fleet(reactor, options.gateway, addresses, options.capacity)
    except ValueError as wrong:
        say(str(wrong))
        raise SystemExit(1) from None
    failed = False
    try:
        await fleet.start(options.spread)
        if options.access_key is not None:
            fleet.bring_crowd(
                options.access_key,
                rate=options.rate,
                rooms=[f"room-{number + 1}" for number in range(options.rooms)],
                mean_stay=options.stay,
                rng=random.Random(options.seed),
                persistent=options.keep_alive,
            )
        await fleet.watch(say, options.status, options.duration)
    except CancelledError:
        pass
    except OdingwError as error:
        say(f"the servers could not start: {error}")
        failed = True
    finally:
        say(f"in all: {fleet.status()}")
        await fleet.stop()
    if failed or fleet.misbehaviours:
        raise SystemExit(1)


def main() -> None:
    """Run the command."""
    options = parse()
    log_warnings()
    run(lambda reactor: simulate(reactor, options))


if __name__ == "__main__":
    main()
