"""What a start looks at about keys: which ones count, and who else may come by their files."""

import re
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import attrs

from odingw.config import Config, state_folder
from odingw.config.errors import config_error
from odingw.config.types import key_text
from odingw.errors import KeyMaterialError
from odingw.escapes import in_text
from odingw.listeners import Entry
from odingw.master_key import FILE_NAME, MasterKeys, find
from odingw.options import Options
from odingw.secret_files import UnsafeFileError, check_writers, warnings
from odingw.state.known_key import KnownKey
from odingw.stores import check_master_keys, known_servers
from odingw.tokens import KeyType, is_key_id_of, key_id, load_public_jwk
from odingw.turn.settings import SHORT_SECRET

_PUBLISHED_X: Final = frozenset(
    {"848c0820be6981358ceba5f08a25446910e5fc0f94d0eb48e783f9f548a9ae76"}
)
"""SHA-256 of the ``x`` of access keys that everybody can have."""

_PLACEHOLDERS: Final = frozenset({"changeme", "alongrandompassword"})
"""In small letters, without spaces and the like."""


def check_keys(
    config: Config, options: Options, entries: Iterable[Entry]
) -> tuple[MasterKeys, KnownKey]:
    """Find the master keys that a gateway would start with; nothing is made.

    Args:
        config: the configuration that the options ask for.
        options: where it comes from.
        entries: what is listened on.

    Returns:
        The keys, and what the state's file knows of servers.

    Raises:
        ConfigError: it must not start with them.
    """
    _refuse_placeholders(config, options.name)
    folder = state_folder()
    file = folder / FILE_NAME
    found = find(config, options.name, folder, option=options["masterkey"] is not None)
    if options["new-masterkey"]:
        known = known_servers(config.state)
    else:
        known = check_master_keys(config.state, found.keys, file)
    more = _of_files(config, options.name, file, entries)
    weak = (*_published_access_keys(config), *_short_passwords(config), *_odd_key_ids(config))
    return attrs.evolve(found, warnings=(*found.warnings, *weak, *more)), known


def _refuse_placeholders(config: Config, source: str) -> None:
    """Refuse what examples have in the place of a secret."""
    turn = config.turn
    secrets = _passwords(config)
    address = config.state.address
    secrets["state.url"] = address.password or ""
    secrets["state.url (sentinel_password)"] = address.sentinel_password or ""
    if turn is not None:
        keys = "secret_keys_file" if turn.secret_keys_file else "secret_keys"
        secrets |= {f"turn.{keys}[{n}]": text for n, text in enumerate(turn.secret_keys)}
        secrets["turn.forced_password"] = turn.forced_password or ""
    for key, text in secrets.items():
        if "…" in text or re.sub("[-_ ]", "", text).lower() in _PLACEHOLDERS:
            raise config_error(
                source, key, "this is what examples have; write a secret of your own"
            )


def _passwords(config: Config) -> dict[str, str]:
    """Return the passwords of users, by the keys that they stand under."""
    passwords = {
        f"gateway.internal.users.{key_text(name)}": user.password
        for name, user in config.gateway.internal.users.items()
    }
    users = config.admin.users.items()
    return passwords | {f"admin.users.{key_text(name)}": text for name, text in users}


def _short_passwords(config: Config) -> Iterator[str]:
    for key, password in _passwords(config).items():
        if len(password) < SHORT_SECRET:
            yield (
                f"{key}: short enough to be guessed; write a password of {SHORT_SECRET} random "
                "characters or more"
            )


def _published_access_keys(config: Config) -> Iterator[str]:
    for customer in config.gateway.customers:
        for key in customer.access_keys:
            x = key.public_key.get("x")
            if isinstance(x, str) and sha256(x.encode()).hexdigest() in _PUBLISHED_X:
                yield (
                    f"THE ACCESS KEY OF CUSTOMER {in_text(customer.id)} IS PUBLISHED: odingw's "
                    "documentation shows it, and everybody can make tokens with it; make another "
                    "one (odingw access-key new)"
                )


def _odd_key_ids(config: Config) -> Iterator[str]:
    """Yield a line for each id that has the form of one made from a key, and is not of its key."""
    for customer in config.gateway.customers:
        for key in customer.access_keys:
            try:
                jwk = load_public_jwk(key.public_key)
            except KeyMaterialError:
                continue
            own = key_id(jwk.public_key, KeyType.CUSTOMER)
            if is_key_id_of(jwk.kid, KeyType.CUSTOMER) and jwk.kid != own:
                yield (
                    f"customer {in_text(customer.id)}: kid {in_text(jwk.kid)} is not that of its "
                    f"x, which has {own}; copy both anew (odingw access-key show)"
                )


def _of_files(
    config: Config, source: str, master_key: Path, entries: Iterable[Entry]
) -> Iterator[str]:
    """Yield what is wrong with files and yet no reason not to start; what is, was refused."""
    gateway, turn = config.gateway, config.turn
    found: list[Path | None] = []
    if source and _holds_secrets(config):
        found.append(Path(source))
    found.append(config.state.private_key or config.state.certificate)
    found.append(gateway.master_key_file if gateway.master_keys else master_key)
    found += [turn.config, turn.secret_keys_file] if turn is not None else []
    found += [entry.listener.tls.files.private_key for entry in entries if entry.listener.tls]
    for path in dict.fromkeys(path for path in found if path is not None):
        yield from warnings(path)
    customers = gateway.customer_source
    if customers is not None:
        yield from _customers(customers.file)
        yield from _customers(customers.function.path if customers.function else None)


def _customers(path: Path | None) -> Iterator[str]:
    """Yield a line if others can write a file that says who is let in."""
    try:
        if path is not None:
            check_writers(path.stat(), any_owner=True)
    except UnsafeFileError as error:
        yield f"gateway.customer_source: {in_text(str(path))}: {error}"
    except OSError:
        # The source says so when it reads it.
        return


def _holds_secrets(config: Config) -> bool:
    """Whether a secret stands in the configuration itself, as far as can be told afterwards."""
    gateway, turn, customers = config.gateway, config.turn, config.gateway.customer_source
    return bool(
        (gateway.master_keys and gateway.master_key_file is None)
        or gateway.internal.users
        or config.admin.users
        or config.state.address.password
        or config.state.address.sentinel_password
        or (customers and customers.url and urlsplit(customers.url).password)
        or (turn and turn.forced_password and turn.config is None)
        or (turn and turn.secret_keys and turn.secret_keys_file is None)
    )
