"""``odingw call``, ``drain``, ``undrain``, ``disable`` and ``unban``: calls of the two APIs."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import click
from rich.highlighter import JSONHighlighter
from rich.json import JSON

from odingw.cli.keys import make_token, read_access_key
from odingw.cli.options import (
    DEFAULT_INTERNAL,
    Address,
    Duration,
    access_key_options,
    address,
    admin_option,
    epilog,
    gateway_options,
    internal_option,
    internal_options,
    json_option,
)
from odingw.cli.output import UNREACHABLE, Failed, emit, json_text, plain, standard_input
from odingw.cli.state import Server, complete_rooms, complete_servers, fetch
from odingw.cli.tables import console
from odingw.client import (
    Forbidden,
    GatewayClient,
    GatewayError,
    InternalClient,
    MethodNotAllowed,
    MethodNotFound,
    NotFound,
    TransportError,
    Unauthorized,
    UnexpectedReply,
)
from odingw.documents import NotJsonError, half_in, read_document
from odingw.errors import TokenError
from odingw.tokens import parse

_TOKEN_LIFETIME: Final = 60.0
_BYTES: Final = frozenset({"user_data", "message"})
_CLIENT_API: Final = ("Connect", "RoomClose", "RoomUpdate", "RoomBanClient", "RoomSendMessage")
_DISCOVER: Final = "rpc.discover"
_POLL: Final = 0.5


@contextmanager
def failures(hint: Callable[[GatewayError], str]) -> Iterator[None]:
    """Make one line and an exit status of what a call can end with.

    Args:
        hint: returns what may be behind an error, or an empty text.
    """
    try:
        yield
    except TransportError as error:
        more = hint(error)
        raise Failed(f"{error}; {more}" if more else str(error), UNREACHABLE) from None
    except GatewayError as error:
        text = f"{error}; try again in {error.retry_after:g} s" if error.retry_after else str(error)
        if error.reason:
            raise Failed(f"{text} [{error.reason}]") from None
        more = hint(error)
        raise Failed(f"{text}; {more}" if more else text) from None
    except ValueError as error:
        # Something that cannot be sent: a token that is none, an odd URL.
        raise click.UsageError(plain(error)) from None


def _is_elsewhere(error: GatewayError) -> bool:
    """Whether what answered is no API of this kind, or none at all."""
    return type(error) is NotFound or isinstance(error, MethodNotAllowed | UnexpectedReply)


def _client_hint(url: str, token: str, method: str, error: GatewayError) -> str:
    if isinstance(error, TransportError):
        return ""
    if _is_elsewhere(error) or urlsplit(url).path.endswith("/internal"):
        return f"{url} is no client API; --url must name the public endpoint"
    if isinstance(error, Unauthorized) and error.message.lower() == "not authorized":
        with suppress(TokenError):
            return f"the gateway does not know this access key (kid {parse(token).header.kid})"
    if isinstance(error, Forbidden):
        return f"the access key or the token is not for {method}, or not for this room"
    if isinstance(error, MethodNotFound):
        return f"the token's sub does not name {method}, or this gateway does not have it"
    return ""


def _internal_hint(url: str, user_option: str, error: GatewayError) -> str:
    if isinstance(error, TransportError):
        moved = "if gateway.internal.users or allow is set, /internal is on the public endpoint"
        return f"{moved}; see --internal" if url == DEFAULT_INTERNAL else ""
    if isinstance(error, Unauthorized):
        return f"{url} wants a user and password, or others: see {user_option}"
    return f"{url} is no server API; see --internal" if _is_elsewhere(error) else ""


def call_gateway(gateway: Address, token: str, method: str, params: Mapping[str, object]) -> Any:
    """Call a method of the client API.

    Raises:
        Failed: there is no result.
    """
    with (
        failures(lambda error: _client_hint(gateway.url, token, method, error)),
        GatewayClient(gateway.url, token, timeout=gateway.timeout, verify=gateway.verify) as client,
    ):
        return client.call(method, params)


def call_internal(
    internal: Address, method: str, params: Mapping[str, object], user_option: str = "--user"
) -> Any:
    """Call a method of the server API.

    Args:
        internal: where it is.
        method: its name.
        params: its parameters.
        user_option: the option that a missing user and password is given with.

    Raises:
        Failed: there is no result.
    """
    with (
        failures(lambda error: _internal_hint(internal.url, user_option, error)),
        InternalClient(
            internal.url, auth=internal.auth, timeout=internal.timeout, verify=internal.verify
        ) as client,
    ):
        return client.call(method, params)


@click.command(
    epilog=epilog(
        "odingw call Connect --room lobby --user alice",
        "odingw call RoomClose --room lobby -p ban_time=3600",
        "odingw call RoomSendMessage --room lobby -p user_id=alice -p message=hello",
        "odingw call Info --server-api --json | jq '.servers[].address'",
    )
)
@click.argument("method")
@click.option(
    "--room", metavar="NAME", shell_complete=complete_rooms, help="The room of the token."
)
@click.option("--user", metavar="ID", default="", help="The user of the token (uid).")
@click.option(
    "--param",
    "-p",
    "pairs",
    metavar="NAME=VALUE",
    multiple=True,
    help="A parameter; may be repeated. VALUE is JSON, or else text. The text of message and "
    "user_data becomes bytes; room_id need not be given beside --room.",
)
@click.option(
    "--params",
    metavar="JSON",
    help="All parameters, a JSON object; @FILE reads them from a file, @- from standard input.",
)
@click.option(
    "--token",
    metavar="JWT",
    envvar="ODINGW_TOKEN",
    show_envvar=True,
    help="A token that is there already, instead of one made with the access key.",
)
@click.option("--server-api", is_flag=True, help="Call the server API, without a token.")
@internal_option
@click.option(
    "--internal-user",
    metavar="NAME[:PASSWORD]",
    envvar="ODINGW_INTERNAL_USER",
    show_envvar=True,
    help="HTTP Basic credentials for the server API, if they are not in its URL.",
)
@access_key_options
@gateway_options
@json_option
def call(
    gateway: Address,
    access_key: str | None,
    method: str,
    room: str | None,
    user: str,
    pairs: tuple[str, ...],
    params: str | None,
    token: str | None,
    server_api: bool,
    internal_url: str,
    internal_user: str | None,
    as_json: bool,
) -> None:
    """Call a method of a gateway.

    Prints the result of METHOD. The token is made with the access key, for METHOD and --room.

    Methods of the client API: Connect, RoomClose, RoomUpdate, RoomBanClient, RoomSendMessage,
    rpc.discover; of the server API (with --server-api): Info, Drain, Undrain, Disable and what ODIN
    servers call.
    """
    arguments = _arguments(params, pairs)
    if server_api:
        internal = address(internal_url, internal_user, gateway.timeout, gateway.verify)
        result = call_internal(internal, method, arguments, "--internal-user")
    else:
        name = _client_method(method)
        if room is not None and name != "Connect":
            arguments.setdefault("room_id", room)
        text = token or _own_token(access_key, name, room, arguments, user)
        result = call_gateway(gateway, text, name, arguments)
    if as_json:
        emit(result)
    else:
        out = console()
        if out.is_terminal:
            out.print(JSONHighlighter()(json_text(result)), soft_wrap=True)
        else:
            out.print(JSON.from_data(result, ensure_ascii=True), soft_wrap=True)


def _client_method(text: str) -> str:
    """Return the name of a method as the client API writes it.

    Raises:
        UsageError: there is none.
    """
    for name in (*_CLIENT_API, _DISCOVER):
        if name.lower() == text.lower():
            return name
    raise click.UsageError(
        f"{plain(text)} is no method; one of {', '.join(_CLIENT_API)}, {_DISCOVER}, "
        "or, of the server API, any with --server-api"
    )


def _own_token(
    access_key: str | None, method: str, room: str | None, params: dict[str, Any], user: str
) -> str:
    named = room if room is not None else params.get("room_id")
    if not isinstance(named, str):
        raise click.UsageError("--room is needed to make a token; or give one with --token")
    return make_token(read_access_key(access_key), (named,), user, (method,), _TOKEN_LIFETIME)


def _arguments(document: str | None, pairs: tuple[str, ...]) -> dict[str, Any]:
    """Return the parameters of a call."""
    found: dict[str, Any] = {}
    if document is not None:
        try:
            found = read_document(_contents(document))
        except NotJsonError as error:
            raise click.UsageError(f"--params: not JSON: {error}") from None
        if half := half_in(found):
            raise click.UsageError(f"--params: {half}")
        if not isinstance(found, dict):
            raise click.UsageError('--params: not a JSON object, such as {"ban_time": 60}')
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise click.UsageError(f"--param {plain(pair)!r}: write NAME=VALUE")
        found[name] = _value(name, text)
    return found


def _contents(text: str) -> bytes:
    if not text.startswith("@"):
        return text.encode("utf-8", "surrogateescape")
    if text == "@-":
        return standard_input().read()
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise click.UsageError(f"--params: {text[1:]}: {error.strerror}") from None


def _value(name: str, text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    if name in _BYTES and not isinstance(value, list):
        return list(text.encode("utf-8", "surrogateescape"))
    # An id is text, whatever it looks like.
    return text if name.endswith("_id") and not isinstance(value, str) else value


@click.command(
    epilog=epilog(
        "odingw drain sfu1.example:4433",
        "odingw drain sfu1.example:4433 --wait --wait-timeout 2h && systemctl stop odin",
    )
)
@click.argument("server", shell_complete=complete_servers)
@click.option("--wait", is_flag=True, help="Return when the server has no room left (status 0).")
@click.option(
    "--wait-timeout", type=Duration(), help="Wait no longer than this; then the status is 1."
)
@admin_option
@internal_options
@json_option
def drain(
    internal: Address,
    server: str,
    wait: bool,
    wait_timeout: float | None,
    admin_url: str,
    as_json: bool,
) -> None:
    """Let a server take no new rooms.

    It keeps those that it has, and stays drained when the gateway restarts. --wait watches it at
    the admin endpoint until they are gone; Ctrl-C ends the wait and changes nothing.
    """
    call_internal(internal, "Drain", {"server": server})
    left = 0
    if wait or wait_timeout is not None:
        # Its user and password, if it wants any, are others: they are in its URL.
        admin = address(admin_url, None, internal.timeout, internal.verify)
        left = _until_empty(admin, server, wait_timeout)
    if as_json:
        document = {"server": server, "drained": True}
        emit(document | {"rooms": left} if wait or wait_timeout is not None else document)
    else:
        click.echo(f"{plain(server)} is drained")
    if left:
        raise Failed(f"{server} still has {left} rooms")


def _until_empty(admin: Address, server: str, patience: float | None) -> int:
    """Wait until a server has no room; return how many it has when the patience ends."""
    end = None if patience is None else time.monotonic() + patience
    rooms = None
    with console(err=True).status("waiting") as status:
        while True:
            try:
                state = fetch(admin, rooms=False)
            except Failed as error:
                # A gateway that is just being started anew knows of the drain all the same.
                if error.status != UNREACHABLE or rooms is None:
                    raise
                status.update(error.message)
            else:
                found = [one for one in state.all_servers() if one.address == server]
                rooms = sum(one.rooms for one in found)
                status.update(_remains(server, found))
            if not rooms or (end is not None and time.monotonic() > end):
                return rooms
            time.sleep(_POLL)


def _remains(server: str, found: list[Server]) -> str:
    rooms, peers = (sum(getattr(one, name) for one in found) for name in ("rooms", "peers"))
    return f"{plain(server)} has {rooms} rooms with {peers} peers left"


@click.command(epilog=epilog("odingw undrain sfu1.example:4433"))
@click.argument("server", shell_complete=complete_servers)
@internal_options
@json_option
def undrain(internal: Address, server: str, as_json: bool) -> None:
    """Let a server take new rooms again."""
    call_internal(internal, "Undrain", {"server": server})
    if as_json:
        emit({"server": server, "drained": False})
    else:
        click.echo(f"{plain(server)} takes new rooms")


@click.command(epilog=epilog("odingw disable sfu1.example:4433"))
@click.argument("server", shell_complete=complete_servers)
@internal_options
@json_option
def disable(internal: Address, server: str, as_json: bool) -> None:
    """Take a server for dead, so that its rooms move at their next Connect.

    That is for a server that died together with the gateway that it reported to: such a server is
    waited for, for gateway.unheard_timeout. One that reports again is used again.
    """
    call_internal(internal, "Disable", {"server": server})
    if as_json:
        emit({"server": server, "disabled": True})
    else:
        click.echo(f"{plain(server)} is disabled until it reports again")


@click.command(
    epilog=epilog("odingw unban lobby alice", "odingw unban lobby    # the room, for everybody")
)
@click.argument("room", shell_complete=complete_rooms)
@click.argument("user", required=False)
@access_key_options
@gateway_options
@json_option
def unban(
    gateway: Address, access_key: str | None, room: str, user: str | None, as_json: bool
) -> None:
    """Lift the ban of a room or a user.

    USER may enter ROOM again; without USER, everybody may.

    This is the call that bans, with a time of 0. Where there is no ban to lift it does the rest
    of what that call does: USER leaves the room, or the room is closed. A room that is on no
    server and has no ban is not found (status 1).
    """
    method = "RoomClose" if user is None else "RoomBanClient"
    params: dict[str, object] = {"room_id": room, "ban_time": 0}
    if user is not None:
        params["user_id"] = user
    text = make_token(read_access_key(access_key), (room,), "", (method,), _TOKEN_LIFETIME)
    call_gateway(gateway, text, method, params)
    if as_json:
        emit({"room": room, "user": user, "banned": False})
    elif user is None:
        click.echo(f"room {plain(room)} is open")
    else:
        click.echo(f"{plain(user)} may enter {plain(room)}")
