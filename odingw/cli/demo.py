"""``odingw demo``."""

import shutil
import sys
from pathlib import Path
from shlex import quote

import click

from odingw.cli.options import Duration, epilog, json_option
from odingw.cli.output import Failed, emit
from odingw.cli.reactor import in_reactor
from odingw.sim import demo as simulation
from odingw.sim.console import say


@click.command(
    epilog=epilog("odingw demo", "odingw demo --port 8000 --rate 50 --duration 1m").replace(
        "130 interrupted with Ctrl-C; 143 ended by SIGTERM",
        "Ctrl-C and SIGTERM are the usual end, and 0",
    )
)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("var/demo"),
    show_default=True,
    help="Where a folder named after the port holds the gateway's configuration.",
)
@click.option(
    "--port",
    metavar="P",
    type=click.IntRange(1, 65533),
    help="The gateway's port; the next two are for admin and for ODIN servers. All three must be "
    "free. Default: 7000, or the next three that are free.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0.001, 100_000),
    default=2.0,
    show_default=True,
    help="Clients per second.",
)
@click.option(
    "--stay", type=Duration(0.001), default="1m", show_default=True, help="A client's mean stay."
)
@click.option(
    "--duration",
    "-d",
    "length",
    type=Duration(),
    help="Stop after this time. Without it, Ctrl-C stops the demo.",
)
@json_option
def demo(
    folder: Path, port: int | None, rate: float, stay: float, length: float | None, as_json: bool
) -> None:
    """Run a gateway with simulated servers and clients on this machine.

    Prints commands to try in another terminal. It listens only on the loopback interface, and
    makes a new configuration and new keys each time. With --json, it prints what there is to try
    as one document, and the gateway's log goes to standard error.
    """
    plan = simulation.Plan(folder, port, rate, stay, length, _command(), as_json)

    def tell(entries: list[simulation.Entry]) -> None:
        if as_json:
            emit({entry.name: entry.text for entry in entries})
        else:
            simulation.show(entries)

    def status(line: str) -> None:
        if as_json:
            click.echo(line, err=True)
        else:
            say(line)

    try:
        end = in_reactor(lambda reactor: simulation.demo(reactor, plan, tell, status))
    except simulation.DemoFailed as error:
        raise Failed(f"demo: {error}") from None
    status(f"odingw demo: stopped; {end}")


def _command() -> str:
    """How this very command is called from another terminal."""
    if getattr(sys, "frozen", False):
        return quote(sys.executable)
    program = Path(sys.executable).parent / "odingw"
    found = shutil.which("odingw")
    if found is not None and Path(found).resolve() == program.resolve():
        return "odingw"
    return quote(str(program)) if program.exists() else f"{quote(sys.executable)} -m odingw.cli"
