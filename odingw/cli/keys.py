"""``odingw access-key``, ``token`` and ``decode``: key material, without a gateway."""

import json
import os
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec
from click.core import ParameterSource

from odingw.cli.options import Duration, access_key_options, epilog, json_option
from odingw.cli.output import REFUSED, Failed, emit, plain, standard_input
from odingw.cli.tables import facts, show
from odingw.documents import without_marks
from odingw.errors import NOT_JSON, KeyMaterialError, TokenError
from odingw.tokens import AccessKey, PublicJwk, TokenGenerator, check_signature, parse

METHODS = ("Connect", "RoomClose", "RoomUpdate", "RoomBanClient", "RoomSendMessage", "turn")
"""What a token's ``sub`` may name."""


def read_access_key(text: str | None, instead: str = "") -> AccessKey:
    """Return an access key.

    Args:
        text: it, if it was given.
        instead: what a token can be given with in its place.

    Raises:
        UsageError: there is none, or it is not one; the message does not repeat it.
    """
    if not text:
        raise click.UsageError(
            "an access key is needed: ODINGW_ACCESS_KEY, ODINGW_ACCESS_KEY_FILE or "
            "--access-key-file FILE" + (f"; or a token: {instead}" if instead else "")
        )
    try:
        return AccessKey(without_marks(text))
    except KeyMaterialError as error:
        raise click.UsageError(f"{_access_key_source()}: {error}") from None


def _access_key_source() -> str:
    """Return where the access key of the running command comes from."""
    context = click.get_current_context()
    if context.params.get("access_key") is None:
        return str(context.params["access_key_file"].name)
    source = context.get_parameter_source("access_key")
    return "ODINGW_ACCESS_KEY" if source is ParameterSource.ENVIRONMENT else "--access-key"


@click.group()
def access_key() -> None:
    """Make and inspect access keys.

    An access key belongs to a customer and signs the tokens of its users. It stays with the
    customer's backend; the gateway knows its public half.
    """


@access_key.command(
    epilog=epilog(
        "odingw access-key new --customer acme",
        "odingw access-key new --customer acme --out acme.key >> odingw.toml",
        "odingw access-key new --json | jq -r .access_key",
    )
)
@click.option("--customer", metavar="ID", default="acme", show_default=True, help="Customer id.")
@click.option(
    "--namespace",
    metavar="NAME",
    help="Namespace of the customer's rooms; without it, the customer's id.",
)
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the key to a new file that you alone can read, and print the public half only.",
)
@json_option
def new(customer: str, namespace: str | None, out: Path | None, as_json: bool) -> None:
    """Make an access key.

    Prints the key, which is a secret, and the lines for the gateway's configuration.
    """
    key = AccessKey.generate(secrets.token_bytes)
    if out is not None:
        _write(out, key)
    secret = key.text if out is None else None
    _print(key, secret, customer, namespace, as_json)


def _write(path: Path, key: AccessKey) -> None:
    try:
        # Mode 0600 from the first moment, and never over a key that is in use.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:  # noqa: PTH123  -- a descriptor
            file.write(f"{key.text}\n")
    except FileExistsError:
        raise Failed(f"{path}: the file exists; choose another name, keys are not replaced") from (
            None
        )
    except OSError as error:
        raise Failed(f"{path}: {error.strerror}") from None


@access_key.command(
    "show",
    epilog=epilog(
        "odingw access-key show --access-key-file acme.key",
        "pass acme | odingw access-key show --access-key-file -",
    ),
)
@click.option("--customer", metavar="ID", default="acme", show_default=True, help="Customer id.")
@click.option(
    "--namespace",
    metavar="NAME",
    help="Namespace of the customer's rooms; without it, the customer's id.",
)
@access_key_options
@json_option
def inspect(access_key: str | None, customer: str, namespace: str | None, as_json: bool) -> None:
    """Show the public half of an access key.

    Checks that it was copied correctly, and prints its id and the lines for the gateway's
    configuration; never the key itself.
    """
    _print(read_access_key(access_key), None, customer, namespace, as_json)


def _print(
    key: AccessKey, secret: str | None, customer: str, namespace: str | None, as_json: bool
) -> None:
    jwk = key.public_jwk()
    if as_json:
        document: dict[str, Any] = {} if secret is None else {"access_key": secret}
        emit(document | {"kid": key.kid, "public_key": msgspec.to_builtins(jwk)})
        return
    if secret is not None:
        click.echo(
            f"# Access key (a secret: it signs tokens; keep it in your backend):\n# {secret}"
        )
    click.echo(f"# Key id {key.kid}; for the gateway's odingw.toml:")
    click.echo(customer_toml(jwk, customer, namespace), nl=False)


def customer_toml(jwk: PublicJwk, customer: str, namespace: str | None) -> str:
    """Return a customer with one access key, as the gateway's configuration has it."""
    lines = ["[[gateway.customers]]", f"id = {_toml(customer)}", ""]
    lines.append("[[gateway.customers.access_keys]]")
    if namespace is not None:
        lines.append(f"namespace = {_toml(namespace)}")
    members = msgspec.to_builtins(jwk).items()
    jwk_text = ", ".join(f"{name} = {_toml(value)}" for name, value in members)
    return "\n".join([*lines, f"public_key = {{ {jwk_text} }}", ""])


def _toml(text: str) -> str:
    # A JSON string is a TOML one, but for DEL, which TOML wants escaped.
    return json.dumps(text).replace("\x7f", "\\u007f")


@click.command(
    epilog=epilog(
        "odingw token lobby --user alice",
        "odingw token lobby --method RoomClose --method RoomBanClient --lifetime 1h",
        "odingw token lobby --user alice --method turn",
        'curl -H "Authorization: Bearer $(odingw token lobby --user alice)" …',
    )
)
@click.argument("rooms", metavar="ROOM...", nargs=-1, required=True)
@click.option("--user", metavar="ID", default="", help="The user's id (uid); empty without it.")
@click.option(
    "--method",
    "methods",
    metavar="NAME",
    multiple=True,
    type=click.Choice(METHODS, case_sensitive=False),
    default=("Connect",),
    help=f"A method that it may call (sub); may be repeated. Default: Connect. "
    f"One of {', '.join(METHODS)}.",
)
@click.option(
    "--lifetime", type=Duration(1), default="5m", show_default=True, help="How long it is valid."
)
@click.option("--server", metavar="ADDRESS", help="The one server to place a new room on.")
@click.option("--tag", "tags", metavar="TEXT", multiple=True, help="A tag; may be repeated.")
@click.option("--audience", metavar="NAME", help="Who may accept it (aud), such as gateway.")
@access_key_options
@json_option
def token(
    access_key: str | None,
    rooms: tuple[str, ...],
    user: str,
    methods: tuple[str, ...],
    lifetime: float,
    server: str | None,
    tags: tuple[str, ...],
    audience: str | None,
    as_json: bool,
) -> None:
    """Make a client token.

    Prints the token alone. It lets USER into ROOM; several rooms must have the same base.
    """
    key = read_access_key(access_key)
    text = make_token(
        key,
        rooms,
        user,
        methods,
        lifetime,
        tags=tags or None,
        audience=audience,
        internal=None if server is None else {"server": server},
    )
    if as_json:
        emit({"token": text, "kid": key.kid, "claims": json.loads(parse(text).payload)})
    else:
        click.echo(text)


def make_token(
    key: AccessKey,
    rooms: tuple[str, ...],
    user: str,
    methods: tuple[str, ...],
    lifetime: float,
    **claims: Any,
) -> str:
    """Return a token that is good from now on.

    Raises:
        UsageError: a text cannot be written as UTF-8.
    """
    try:
        return TokenGenerator(key).create_token(
            rooms[0] if len(rooms) == 1 else rooms,
            user,
            now=time.time(),
            lifetime=int(lifetime),
            subject=methods[0] if len(methods) == 1 else methods,
            **claims,
        )
    except ValueError:
        raise click.UsageError("rooms, users and tags must be UTF-8") from None


@click.command(
    epilog=epilog(
        "odingw decode eyJhbGciOi…",
        "odingw call Connect --room lobby --user alice --json | jq -r .token | odingw decode",
        "odingw decode --access-key-file acme.key < token.jwt",
    )
)
@click.argument("text", metavar="[TOKEN]", default="-")
@access_key_options
@json_option
def decode(text: str, access_key: str | None, as_json: bool) -> None:
    """Show what a token says.

    TOKEN is a client token or a room token; without it, or as -, it is read from standard input.
    With the access key that it names, its signature is checked too; a wrong one ends with
    status 1.
    """
    if text == "-":
        text = standard_input().readline(65536).decode("utf-8", "replace")
    try:
        jws = parse(without_marks(text).strip().removeprefix("Bearer "))
        claims = msgspec.json.decode(jws.payload, type=dict[str, Any])
    except TokenError as error:
        raise Failed(f"this is no JWT: {error.message}") from None
    except NOT_JSON:
        raise Failed("this is no JWT: its payload is not a JSON object") from None
    signed = None
    if access_key:
        key = read_access_key(access_key)
        # Room tokens, for one, are signed by others.
        if jws.header.kid == key.kid:
            signed = check_signature(key.secret_key.public_key, jws)
    if as_json:
        document = {"header": msgspec.to_builtins(jws.header), "claims": claims}
        emit(document if signed is None else document | {"signature": signed})
    else:
        pairs: dict[str, object] = {"alg": jws.header.alg, "kid": jws.header.kid}
        pairs |= {plain(name): _claim(name, value) for name, value in claims.items()}
        if signed is not None:
            pairs["signature"] = "good" if signed else "WRONG: not made with this access key"
        elif access_key:
            pairs["signature"] = "not checked: by another key"
        show(facts(pairs))
    if signed is False:
        click.get_current_context().exit(REFUSED)


def _claim(name: str, value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if name not in ("exp", "nbf", "iat") or not isinstance(value, int | float):
        return text
    try:
        date = datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return text
    away = value - time.time()
    where = f"in {away:.0f} s" if away > 0 else f"{-away:.0f} s ago"
    return f"{text}  {date:%Y-%m-%d %H:%M:%S} UTC, {where}"
