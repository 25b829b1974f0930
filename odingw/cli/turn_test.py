"""``odingw turn-test``."""

import ssl
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Literal

import click
import msgspec
import requests
from msgspec import Struct, field

from odingw.cli.allocation import Proof, TurnFailed, address_text, prove
from odingw.cli.keys import make_token, read_access_key
from odingw.cli.options import (
    Address,
    Duration,
    access_key_options,
    epilog,
    gateway_options,
    json_option,
)
from odingw.cli.output import Failed, emit
from odingw.cli.state import open_session, unreachable
from odingw.cli.tables import cell, console, duration, show, table
from odingw.documents import unmarked
from odingw.errors import NOT_JSON
from odingw.turn.stun import Address as SocketAddress
from odingw.turn.uris import TurnUri, parse_uri

_LIFETIME: Final = 60.0
_AT_ONCE: Final = 16
_STYLES: Final = {"ok": "green", "failed": "red", "skipped": "yellow"}


class Credentials(Struct, frozen=True):
    """What the gateway hands out."""

    username: str
    password: str
    ttl: float
    uris: list[str]
    ice_servers: list[dict[str, Any]] = field(name="iceServers", default_factory=list)

    def places(self) -> list[str]:
        """Return all URIs, those of STUN servers too."""
        found = dict.fromkeys(self.uris)
        for server in self.ice_servers:
            urls = server.get("urls")
            if isinstance(urls, list):
                found.update(dict.fromkeys(url for url in urls if isinstance(url, str)))
        return list(found)


class Outcome(Struct, frozen=True):
    """What came of one URI."""

    uri: str
    status: Literal["ok", "failed", "skipped"]
    proof: Proof | None = None
    code: int | None = None
    error: str = ""

    def document(self) -> dict[str, Any]:
        """Return it for ``--json``."""
        found: dict[str, Any] = {"uri": self.uri, "status": self.status}
        if self.proof is not None:
            found |= {
                "relayed": _text(self.proof.relayed),
                "mapped": _text(self.proof.mapped),
                "rtt": round(self.proof.rtt, 6),
                "software": self.proof.software or None,
                "alternate": _text(self.proof.alternate),
            }
        if self.error:
            found |= {"code": self.code, "error": self.error}
        return found


@click.command(
    epilog=epilog(
        "odingw turn-test --url https://gateway.example/ --token $JWT",
        "odingw turn-test --access-key-file acme.key      # with turn.access_keys = true",
        "odingw turn-test --json | jq '.servers[] | select(.status != \"ok\")'",
    )
)
@click.option(
    "--token",
    metavar="JWT",
    envvar="ODINGW_TOKEN",
    show_envvar=True,
    help="What /turn wants to see, instead of a token made with the access key.",
)
@click.option(
    "--user", metavar="ID", default="turn-test", show_default=True, help="The user of a made token."
)
@click.option(
    "--server-timeout",
    type=Duration(0.1),
    default="5s",
    show_default=True,
    help="How long a TURN server may take.",
)
@access_key_options
@gateway_options
@json_option
def turn_test(
    gateway: Address,
    access_key: str | None,
    token: str | None,
    user: str,
    server_timeout: float,
    as_json: bool,
) -> None:
    """Prove TURN credentials at the servers themselves.

    Gets credentials from the gateway's /turn, makes a real allocation with them at each TURN
    server that it names, over UDP, TCP and TLS, and releases it again. A server that sends on to
    another one is followed once. STUN servers are asked for a Binding. Status 1 if one does not
    work; DTLS is left out.

    --ca-file and --insecure count for the certificates of TURN servers too.
    """
    text = token or make_token(
        read_access_key(access_key, "--token, ODINGW_TOKEN"), ("",), user, ("turn",), _LIFETIME
    )
    credentials = _fetch(gateway, text)
    context = tls_context(gateway.verify)
    places = credentials.places()
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        with console(err=True).status(f"asking {len(places)} servers"):
            outcomes = list(
                pool.map(lambda uri: _try(uri, credentials, server_timeout, context), places)
            )
    finally:
        # Who is interrupted waits for no server.
        pool.shutdown(wait=False, cancel_futures=True)
    failed = sum(one.status == "failed" for one in outcomes)
    if as_json:
        emit(
            {
                "username": credentials.username,
                "ttl": credentials.ttl,
                "servers": [one.document() for one in outcomes],
            }
        )
    else:
        click.echo(f"credentials of {credentials.username}, good for {duration(credentials.ttl)}\n")
        _print(outcomes)
    if failed:
        raise Failed(f"{failed} of {len(outcomes)} servers failed")


def _fetch(gateway: Address, token: str) -> Credentials:
    """Get credentials.

    Raises:
        Failed: there are none.
    """
    if not token.isascii() or not token.isprintable():
        raise click.UsageError("--token: not a JWT")
    url = f"{gateway.url.rstrip('/')}/turn"
    with open_session(gateway) as session:
        try:
            response = session.get(
                url,
                # Not session.auth: a token is wanted, whatever a netrc file says.
                auth=_no_auth,
                headers={"Authorization": f"Bearer {token.strip()}"},
                timeout=gateway.timeout,
                allow_redirects=False,
            )
            body = unmarked(response.content)
        except requests.RequestException as error:
            raise unreachable(gateway.url, error) from None
    try:
        if response.status_code == 200:
            return msgspec.json.decode(body, type=Credentials)
        refusal = msgspec.json.decode(body)["error"]
        message = ": ".join((refusal["message"], *_detail(refusal)))
        raise Failed(f"{url}: {message} (HTTP status {response.status_code})")
    except (LookupError, TypeError, *NOT_JSON):
        raise Failed(
            f"{url} does not answer as a gateway does (HTTP status {response.status_code})"
        ) from None


def _detail(error: dict[str, Any]) -> Iterator[str]:
    data = error.get("data")
    if isinstance(data, dict) and isinstance(data.get("detail"), str):
        yield data["detail"]


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def tls_context(verify: bool | str) -> ssl.SSLContext:
    """Return how TURN servers are judged.

    Args:
        verify: whether to check certificates, or a file of authorities to check them with.

    Raises:
        Failed: the file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=verify if isinstance(verify, str) else None)
    except OSError as error:
        raise Failed(f"--ca-file: {error.strerror or error}") from None
    if verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _try(text: str, credentials: Credentials, timeout: float, tls: ssl.SSLContext) -> Outcome:
    try:
        uri = parse_uri(text, "turn")
    except ValueError as error:
        return Outcome(text, "failed", error=str(error))
    if _is_dtls(uri):
        return Outcome(text, "skipped", error="DTLS is not tested")
    try:
        proof = prove(uri, credentials.username, credentials.password, timeout, tls)
    except TurnFailed as error:
        return Outcome(text, "failed", code=error.code, error=str(error))
    return Outcome(text, "ok", proof)


def _is_dtls(uri: TurnUri) -> bool:
    return uri.scheme.endswith("s") and uri.transport == "udp"


def _print(outcomes: Iterable[Outcome]) -> None:
    rows = table("SERVER", "!RESULT", ">RTT", "RELAYED ADDRESS")
    for one in outcomes:
        proof = one.proof
        rtt = "-" if proof is None else f"{1000 * proof.rtt:.1f} ms"
        found = one.error if proof is None else _text(proof.relayed) or "- (STUN)"
        if proof and proof.alternate:
            found += f" (sent on to {_text(proof.alternate)})"
        rows.add_row(cell(one.uri), cell(one.status, _STYLES[one.status]), cell(rtt), cell(found))
    show(rows)


def _text(address: SocketAddress | None) -> str | None:
    return None if address is None else address_text(address)
