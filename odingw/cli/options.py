"""Options that several commands share, and what they come to."""

import functools
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO
from urllib.parse import unquote, urlsplit

import click

from odingw.cli.output import STATUS, Failed, complain

Command = Callable[..., Any]

DEFAULT_ADMIN: Final = "http://127.0.0.1:7001"
ADMIN_VARIABLE: Final = "ODINGW_ADMIN"
DEFAULT_INTERNAL: Final = "http://127.0.0.1:7002/internal"
INTERNAL_VARIABLE: Final = "ODINGW_INTERNAL"

_UNITS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_HOST_AND_PORT: Final = re.compile(
    r"(?:[^/?#]*@)?(?:[^:/?#@\[\]]+|\[[0-9A-Fa-f:.]+\])(?::\d+)?(?:/.*)?", re.ASCII
)
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd]?)", re.ASCII)


class Duration(click.ParamType[float]):
    """A time: seconds, or a number with ``ms``, ``s``, ``m``, ``h`` or ``d``.

    Args:
        least: the shortest that is taken, in seconds.
    """

    name = "duration"

    def __init__(self, least: float = 0.0) -> None:
        self._least = least

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return seconds."""
        if isinstance(value, int | float):
            return float(value)
        found = _DURATION.fullmatch(str(value))
        if found is None:
            self.fail(f"{value!r} is no duration: 90, 90s, 5m, 1.5h, 2d", param, ctx)
        seconds = float(found[1]) * _UNITS[found[2]]
        if not self._least <= seconds < 1e9:
            self.fail(f"{value!r} must be {self._least:g} seconds at least", param, ctx)
        return seconds


class Url(click.ParamType[str]):
    """An http or https URL, or ``host:port``, which is taken for http."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the URL."""
        text = str(value)
        if "://" not in text and _HOST_AND_PORT.fullmatch(text):
            text = f"http://{text}"
        try:
            parts = urlsplit(text)
            # Reading the port checks it.
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable or any(char.isspace() for char in text):
            self.fail("not a URL; write it as http://host:port/", param, ctx)
        return text


@dataclass(frozen=True, slots=True)
class Address:
    """Where an API is, and how to get in.

    Attributes:
        url: without user and password.
        auth: user and password of HTTP Basic, or None.
        timeout: seconds that a call may take.
        verify: whether to check the certificate, or a file of authorities to check it with.
    """

    url: str
    auth: tuple[str, str] | None = field(repr=False)
    timeout: float
    verify: bool | str


def address(url: str, user: str | None, timeout: float, verify: bool | str) -> Address:
    """Return an address.

    Args:
        url: may hold a user and password.
        user: ``name:password``, or a name, for which the password is asked; beats the URL's.
        timeout: as ``Address`` has it.
        verify: likewise.
    """
    parts = urlsplit(url)
    auth = None
    if parts.username is not None:
        auth = unquote(parts.username), unquote(parts.password or "")
    if user is not None:
        name, colon, password = user.partition(":")
        if not colon and not (sys.stdin and sys.stdin.isatty()):
            raise click.UsageError("--user: the password is missing; write NAME:PASSWORD")
        if not colon:
            password = click.prompt(f"Password of {name}", hide_input=True, err=True)
        auth = name, password
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return Address(bare, auth, timeout, verify)


def json_option(command: Command) -> Command:
    """Add ``--json``, as the argument ``as_json``."""
    option = click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."
    )
    return option(command)


def tls_options(command: Command) -> Command:
    """Add how certificates are judged, as the argument ``verify``: as ``Address`` has it."""

    @functools.wraps(command)
    def wrapper(*args: Any, ca_file: str | None, insecure: bool, **kwargs: Any) -> Any:
        if insecure:
            # Whoever gives the option knows. The overview of all commands need not wait for this.
            import urllib3

            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        return command(*args, verify=False if insecure else ca_file or True, **kwargs)

    for option in (
        click.option(
            "--insecure", is_flag=True, help="Do not check the certificate of an https URL."
        ),
        click.option(
            "--ca-file",
            type=click.Path(exists=True, dir_okay=False),
            envvar="ODINGW_CA_FILE",
            show_envvar=True,
            help="Certificates of the authorities that are trusted (PEM).",
        ),
    ):
        wrapper = option(wrapper)
    return wrapper


def _transport(command: Command) -> Command:
    option = click.option(
        "--timeout",
        type=Duration(0.001),
        default="10s",
        show_default=True,
        help="How long a call may take.",
    )
    return tls_options(option(command))


def gateway_options(command: Command) -> Command:
    """Add where the client API is, as the argument ``gateway``, an ``Address``."""

    @functools.wraps(command)
    def wrapper(*args: Any, url: str, timeout: float, verify: bool | str, **kwargs: Any) -> Any:
        gateway = address(url, None, timeout, verify)
        return command(*args, gateway=gateway, **kwargs)

    return url_option(_transport(wrapper))


def url_option(command: Command) -> Command:
    """Add ``--url`` alone, as the argument ``url``."""
    option = click.option(
        "--url",
        type=Url(),
        default="http://127.0.0.1:7000/",
        envvar="ODINGW_URL",
        show_default=True,
        show_envvar=True,
        help="The gateway, with the pool as the path where there are several.",
    )
    return option(command)


def _user_option(envvar: str) -> Callable[[Command], Command]:
    return click.option(
        "--user",
        metavar="NAME[:PASSWORD]",
        envvar=envvar,
        show_envvar=True,
        help="HTTP Basic credentials, if they are not in the URL; a missing password is asked "
        "for. Other users of this machine see command lines: prefer the environment.",
    )


def _address_options(command: Command, argument: str, user_variable: str) -> Command:
    """Add who calls and how, and make an ``Address`` of that and of the URL."""

    @functools.wraps(command)
    def wrapper(
        *args: Any,
        user: str | None,
        timeout: float,
        verify: bool | str,
        **kwargs: Any,
    ) -> Any:
        url = kwargs.pop(f"{argument}_url")
        kwargs[argument] = address(url, user, timeout, verify)
        return command(*args, **kwargs)

    return _user_option(user_variable)(_transport(wrapper))


def internal_options(command: Command) -> Command:
    """Add where the server API is, as the argument ``internal``, an ``Address``."""
    return internal_option(_address_options(command, "internal", "ODINGW_INTERNAL_USER"))


def internal_option(command: Command) -> Command:
    """Add ``--internal`` alone, as the argument ``internal_url``."""
    option = click.option(
        "--internal",
        "internal_url",
        type=Url(),
        default=DEFAULT_INTERNAL,
        envvar=INTERNAL_VARIABLE,
        show_default=True,
        show_envvar=True,
        help="The server API; a pool's is at /POOL/internal.",
    )
    return option(command)


def admin_options(command: Command) -> Command:
    """Add where the admin endpoint is, as the argument ``admin``, an ``Address``."""
    return admin_option(_address_options(command, "admin", "ODINGW_ADMIN_USER"))


def admin_option(command: Command) -> Command:
    """Add ``--admin`` alone, as the argument ``admin_url``."""
    option = click.option(
        "--admin",
        "admin_url",
        type=Url(),
        default=DEFAULT_ADMIN,
        envvar=ADMIN_VARIABLE,
        show_default=True,
        show_envvar=True,
        help="The admin endpoint.",
    )
    return option(command)


def access_key_options(command: Command) -> Command:
    """Add an access key, as the argument ``access_key``: its text, or None."""

    @functools.wraps(command)
    def wrapper(
        *args: Any, access_key: str | None, access_key_file: TextIO | None, **kwargs: Any
    ) -> Any:
        if access_key is None and access_key_file is not None:
            _check_key_file(access_key_file)
            access_key = first_line(access_key_file)
        return command(*args, access_key=access_key, **kwargs)

    for option in (
        click.option(
            "--access-key",
            metavar="KEY",
            envvar="ODINGW_ACCESS_KEY",
            show_envvar=True,
            help="The customer's access key. Other users of this machine see command lines: "
            "prefer the environment, or a file.",
        ),
        click.option(
            "--access-key-file",
            metavar="FILE",
            type=click.File(errors="replace"),
            envvar="ODINGW_ACCESS_KEY_FILE",
            show_envvar=True,
            help="A file with the access key; - is standard input.",
        ),
    ):
        wrapper = option(wrapper)
    return wrapper


def _check_key_file(file: TextIO) -> None:
    """Refuse a key file that others can write, and warn of one that they can read."""
    # The overview of all commands need not wait for what this loads.
    from odingw.secret_files import UnsafeFileError, check_writers, warnings

    try:
        number = file.fileno()
    except OSError:
        # Standard input may be no file.
        return
    if number == 0:
        return
    try:
        check_writers(os.fstat(number))
    except UnsafeFileError as error:
        raise Failed(f"{file.name}: {error}") from None
    for warning in warnings(Path(file.name)):
        complain(f"warning: {warning}")


def first_line(file: TextIO) -> str:
    """Return the first line of a file, without what surrounds it."""
    from odingw.documents import without_marks

    try:
        return without_marks(file.readline(65536)).strip()
    except OSError as error:
        raise Failed(f"{file.name}: {error.strerror}") from None


def epilog(*examples: str) -> str:
    """Return the end of a command's help: examples, and what the exit status means."""
    lines = ["\b", "Examples:", *(f"  {example}" for example in examples)]
    states = "; ".join(f"{status} {meaning}" for status, meaning in STATUS.items())
    return "\n".join([*lines, "", f"Exit status: {states}."])
