"""Loads the TOML configuration and lays the command line's options over it."""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace
from twisted.internet.endpoints import quoteStringArgument

from odingw.config.errors import config_error, convert
from odingw.config.gateway import (
    COMPATIBILITY_PRESETS,
    InternalUser,
)
from odingw.config.parts import (
    MAX_PORT,
    FunctionReference,
    check_endpoints,
    is_port,
    state_folder,
)
from odingw.config.sections import Config, State, Tls
from odingw.config.state_address import StateAddress
from odingw.config.turn import BESIDE_FILE, Turn
from odingw.config.types import key_text
from odingw.documents import lines, unmarked_values, without_marks
from odingw.errors import KeyMaterialError
from odingw.secret_files import UnsafeFileError, read_secret
from odingw.tokens import decode_master_key, decode_master_keys, master_key_lines

DEFAULT_HOST: Final = "0.0.0.0"  # noqa: S104 - a gateway is there to be reached; the wire reference
DEFAULT_PORT: Final = 7000
MAX_DEPTH: Final = 64

_TOO_DEEP: Final = f"tables and lists are nested too deeply; use at most {MAX_DEPTH} levels"

_JSON: Final = (
    "this looks like JSON, and odingw is configured in TOML; docs/migrating-gateway.rst says how "
    "to carry the existing gateway's configuration over; name a TurnRest file with --turn-config"
)

# Twisted does not say so itself.
_quote: Callable[[str], str] = quoteStringArgument

_MANY_DIGITS = re.compile(r"(?:([A-Za-z0-9_-]{1,60})[ \t]*=[ \t]*)?[+-]?[0-9][0-9_]{4000,}")
_POSITION = re.compile(r"(.*) \(at (?:line ([0-9]+), column ([0-9]+)|end of document)\)", re.DOTALL)


class Options(Struct, frozen=True, kw_only=True):
    """What the command line gives; None or empty: not given. Paths are as typed.

    Attributes:
        host: interface to listen on, in place of ``listen.public``.
        port: port to listen on, likewise.
        ssl: listen with TLS, likewise.
        certificate: path of the PEM file, for ``tls.certificate``.
        privatekey: path of the PEM file, for ``tls.private_key``.
        masterkey: base64, for ``gateway.master_key`` and all that can stand in its place.
        listen: endpoint strings, for ``listen.public``.
        internal: endpoint strings, for ``listen.internal``.
        admin: endpoint strings, for ``listen.admin``.
        state: URL, for ``state.url``.
        turn_config: path of a TurnRest file, for ``turn.config``; what such a file can say is then
            taken from there alone.
    """

    host: str | None = None
    port: str | int | None = None
    ssl: bool = False
    certificate: str | None = None
    privatekey: str | None = None
    masterkey: str | None = None
    listen: tuple[str, ...] = ()
    internal: tuple[str, ...] = ()
    admin: tuple[str, ...] = ()
    state: str | None = None
    turn_config: str | None = None

    def __repr__(self) -> str:
        """Tell nothing: the master key and the state URL are secrets."""
        return "Options(…)"


def load(path: Path | None, options: Options | None = None) -> Config:
    """Load the configuration.

    Relative paths in the file are resolved against its folder, those of options (and, without
    a file, the defaults) against the working directory.

    Args:
        path: the TOML file; None: every key has its default.
        options: what the command line gives; it beats the file.

    Raises:
        ConfigError: a file cannot be read, or a key or an option is wrong.
    """
    options = options or Options()
    folder = Path.cwd() if path is None else Path.cwd() / path.parent
    source = "" if path is None else str(path)
    document = {} if path is None else _read_toml(path)
    _expand(document, source)
    config = convert(document, Config, source)
    # What the gateway itself chooses to keep goes where the system wants such files.
    state_in = folder if "url" in _table(document, "state") else state_folder()
    config = _resolve(config, folder, state_in)
    if options.masterkey is not None:
        config = _with_master_key(config, options.masterkey)
    elif config.gateway.master_key_file is not None:
        keys = _read_master_keys(config.gateway.master_key_file, source)
        config = replace(config, gateway=replace(config.gateway, master_keys=keys))
    elif config.gateway.master_key:
        keys = (config.gateway.master_key,)
        config = replace(config, gateway=replace(config.gateway, master_keys=keys))
    if options.turn_config is not None:
        file = _option_path("--turn-config", options.turn_config)
        config = replace(config, turn=(config.turn or Turn()).with_file(file))
    elif config.turn is not None and config.turn.secret_keys_file is not None:
        secrets = _read_secrets(config.turn.secret_keys_file, source)
        config = replace(config, turn=replace(config.turn, secret_keys=secrets))
    config = _with_options(config, options)
    _check_shared(config, source)
    return config


def _check_shared(config: Config, source: str) -> None:
    """Refuse what gateways that share something cannot do without."""
    if config.state.address.shared and not config.gateway.master_keys:
        raise config_error(
            source,
            "gateway.master_key",
            "gateways that share their state need the same one; write a key in base64, or set "
            "gateway.master_key_file",
        )


def _read_toml(path: Path) -> dict[str, Any]:
    source = str(path)
    data = _read_bytes(path, source, "", any_owner=True)
    try:
        # Files that were put together have byte order marks in the middle.
        text = without_marks(data.decode())
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise config_error(
            source, f"line {number}", "not valid UTF-8; save the file as UTF-8"
        ) from None
    try:
        document = tomllib.loads(text)
    except RecursionError:
        raise config_error(source, "", _TOO_DEEP) from None
    except ValueError as error:
        if text.lstrip().startswith("{"):
            raise config_error(source, "", _JSON) from None
        # TOMLDecodeError, or what int() says about thousands of digits.
        found = _POSITION.fullmatch(str(error))
        if found is None and (digits := _MANY_DIGITS.search(text)):
            number = text.count("\n", 0, digits.start()) + 1
            raise config_error(
                source,
                "",
                f"invalid TOML: {digits[1] or 'a number'} in line {number} has too many digits",
            ) from None
        if found is None:
            raise config_error(source, "", f"invalid TOML: {error}") from None
        line = found[2] or str(text.count("\n") + 1)
        column = found[3] or str(len(text) - text.rfind("\n"))
        raise config_error(
            source, f"line {line}, column {column}", f"invalid TOML: {found[1]}"
        ) from None
    _check_depth(document, source)
    values: dict[str, Any] = unmarked_values(document)
    return values


def _check_depth(document: dict[str, Any], source: str) -> None:
    """Refuse what the recursive functions that see parts of the document later could not walk."""
    level: list[Any] = [document]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    if level:
        raise config_error(source, "", _TOO_DEEP)


def _read_bytes(path: Path, source: str, key: str, *, any_owner: bool = False) -> bytes:
    try:
        return read_secret(path, any_owner=any_owner)
    except UnsafeFileError as error:
        raise config_error(source, key, f"{path}: {error}" if key else str(error)) from None
    except (OSError, ValueError) as error:
        # A ValueError is a null byte in the path.
        reason = getattr(error, "strerror", None) or str(error)
        what = f"cannot read {path}" if key else "cannot read it"
        raise config_error(
            source, key, f"{what}: {reason}; name a file that odingw may read"
        ) from None


def _expand(document: dict[str, Any], source: str) -> None:
    """Apply the presets and replace short forms by what they stand for, in place."""
    admin = _table(document, "admin")
    _convert_users(admin, source, "admin.users", str)
    gateway = _table(document, "gateway")
    compatibility = gateway.get("compatibility")
    if isinstance(compatibility, str):
        for key, value in COMPATIBILITY_PRESETS.get(compatibility, {}).items():
            gateway.setdefault(key, value)
    given = [key for key in ("master_key", "master_keys") if gateway.get(key)]
    given += ["master_key_file"] if "master_key_file" in gateway else []
    if len(given) > 1:
        raise config_error(
            source, f"gateway.{given[1]}", f"gateway.{given[0]} is given too; keep one of them"
        )
    _check_turn(_table(document, "turn"), source)
    internal = _table(gateway, "internal")
    users = _table(internal, "users")
    for name, value in users.items():
        if isinstance(value, str):
            users[name] = {"password": value}
    _convert_users(internal, source, "gateway.internal.users", InternalUser)
    customer_source = _table(gateway, "customer_source")
    if "function" in customer_source:
        at = "gateway.customer_source.function"
        wanted = '"package.module:name" or "file.py:name"'
        text = convert(customer_source["function"], str, source, at, wanted)
        try:
            customer_source["function"] = FunctionReference.parse(text)
        except ValueError as error:
            raise config_error(source, at, str(error)) from None


def _check_turn(turn: dict[str, Any], source: str) -> None:
    """Refuse keys of ``[turn]`` that do not go together."""
    if "config" in turn:
        for key in turn:
            if key in Turn.__struct_fields__ and key not in {"config", *BESIDE_FILE}:
                raise config_error(
                    source, f"turn.{key}", "turn.config is given too; write it into that file"
                )
    if turn.get("secret_keys") and "secret_keys_file" in turn:
        raise config_error(
            source, "turn.secret_keys_file", "turn.secret_keys is given too; keep one of them"
        )


def _table(outer: dict[str, Any], key: str) -> dict[str, Any]:
    """The table behind a key; an empty one where something else stands, which is refused later."""
    inner = outer.get(key)
    return inner if isinstance(inner, dict) else {}


def _convert_users(
    section: dict[str, Any], source: str, at: str, wanted: type[str] | type[InternalUser]
) -> None:
    """Convert users one by one: about a table of them msgspec would not say which is wrong."""
    users = _table(section, "users")
    advice = "a password in quotes" + (
        "" if wanted is str else ' or { password = "…", servers = ["…"] }'
    )
    for name, value in users.items():
        users[name] = convert(value, wanted, source, f"{at}.{key_text(name)}", advice)


def _resolve(config: Config, folder: Path, state_in: Path) -> Config:
    """Make every path of the file absolute."""
    gateway = config.gateway
    customer_source = gateway.customer_source
    if customer_source is not None:
        if customer_source.file is not None:
            customer_source = replace(customer_source, file=folder / customer_source.file)
        function = customer_source.function
        if function is not None and function.path is not None:
            function = replace(function, path=folder / function.path)
            customer_source = replace(customer_source, function=function)
    master_key_file = gateway.master_key_file
    return replace(
        config,
        tls=Tls(
            certificate=folder / config.tls.certificate,
            private_key=folder / config.tls.private_key,
        ),
        state=_resolved_state(config.state, config.state.url, state_in, folder),
        gateway=replace(
            gateway,
            customer_source=customer_source,
            master_key_file=None if master_key_file is None else folder / master_key_file,
        ),
        turn=None if config.turn is None else _resolved_turn(config.turn, folder),
    )


def _resolved_turn(turn: Turn, folder: Path) -> Turn:
    file, secrets = turn.config, turn.secret_keys_file
    return replace(
        turn,
        config=None if file is None else folder / file,
        secret_keys_file=None if secrets is None else folder / secrets,
    )


def _resolved_state(state: State, url: str, folder: Path, files: Path) -> State:
    address = StateAddress.parse(url, folder)
    return replace(
        state,
        url=url if address.path is None else f"sqlite:{address.path}",
        **{
            name: files / path
            for name in ("ca_file", "certificate", "private_key")
            if (path := getattr(state, name)) is not None
        },
    )


def _read_master_keys(path: Path, source: str) -> tuple[str, ...]:
    key = "gateway.master_key_file"
    data = _read_bytes(path, source, key)
    keys: tuple[str, ...] = ()
    try:
        keys = master_key_lines(data.decode())
        decode_master_keys(keys or ("",))
    except (UnicodeDecodeError, KeyMaterialError) as error:
        if len(keys) > 1:
            text = f"{path}: {error}; put each key there once, in base64, one per line"
        else:
            text = f"{path} holds no base64; put the key there in base64"
        raise config_error(source, key, text) from None
    return keys


def _read_secrets(path: Path, source: str) -> tuple[str, ...]:
    key = "turn.secret_keys_file"
    try:
        secrets = lines(_read_bytes(path, source, key).decode())
    except UnicodeDecodeError:
        raise config_error(source, key, f"{path} is not UTF-8; write a secret per line") from None
    if not secrets:
        raise config_error(source, key, f"{path} holds no secret; write one per line")
    return secrets


def _with_master_key(config: Config, text: str) -> Config:
    try:
        decode_master_key(text)
    except KeyMaterialError:
        raise config_error("--masterkey", "", "not base64; give the key in base64") from None
    gateway = replace(config.gateway, master_key=text, master_keys=(text,), master_key_file=None)
    return replace(config, gateway=gateway)


def _with_options(config: Config, options: Options) -> Config:
    listen = config.listen
    if public := _public(options):
        listen = replace(listen, public=public)
    if options.internal:
        listen = replace(listen, internal=_endpoints("--internal", options.internal))
    if options.admin:
        listen = replace(listen, admin=_endpoints("--admin", options.admin))
    tls = config.tls
    if options.certificate is not None:
        tls = replace(tls, certificate=_option_path("--certificate", options.certificate))
    if options.privatekey is not None:
        tls = replace(tls, private_key=_option_path("--privatekey", options.privatekey))
    state = config.state
    if options.state is not None:
        try:
            state = _resolved_state(state, options.state, Path.cwd(), Path.cwd())
        except ValueError as error:
            raise config_error("--state", "", str(error)) from None
    return replace(config, listen=listen, tls=tls, state=state)


def _public(options: Options) -> tuple[str, ...]:
    """The public endpoints that the options ask for; none: they do not say."""
    plain = options.host is not None or options.port is not None or options.ssl
    if options.listen:
        if plain:
            raise config_error(
                "--listen", "", "--host, --port or --ssl is given too; use either it or them"
            )
        return _endpoints("--listen", options.listen)
    if not plain:
        return ()
    host = DEFAULT_HOST if options.host is None else options.host
    if not host or not host.isprintable() or " " in host:
        raise config_error("--host", "", "not an address; give an IP address or a host name")
    port = str(DEFAULT_PORT if options.port is None else options.port)
    if not is_port(port):
        raise config_error("--port", "", f"not a port; give a number from 0 to {MAX_PORT}")
    kind = "ssl" if options.ssl else "tcp"
    return (f"{kind}:{int(port)}:interface={_quote(host)}",)


def _endpoints(option: str, texts: tuple[str, ...]) -> tuple[str, ...]:
    try:
        check_endpoints(texts)
    except ValueError as error:
        raise config_error(option, "", str(error).partition(": ")[2]) from None
    return texts


def _option_path(option: str, text: str) -> Path:
    if not text or "\0" in text:
        raise config_error(option, "", "not the path of a file; give one")
    return Path.cwd() / text
