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
        "130 interrupted with Ctrl-C", "Ctrl-C is the usual end, and 0"
    )
)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("var/demo"),
    show_default=True,
    help="For the gateway's configuration, in a folder that the port names.",
)
@click.option(
    "--port",
    metavar="P",
    type=click.IntRange(1, 65533),
    help="Of the gateway; the next ones are for admin and for ODIN servers. All must be free. "
    "Default: 7000, or what is free.",
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
    help="Stop after this time; without it, at Ctrl-C.",
)
@json_option
def demo(
    folder: Path, port: int | None, rate: float, stay: float, length: float | None, as_json: bool
) -> None:
    """Run a gateway with simulated servers and clients on this machine.

    Prints commands to try in another terminal. It listens on the loopback interface alone, with a
    configuration and keys that are made anew each time. With --json, what there is to try out is
    printed as one document, and the gateway's log goes to standard error.
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
