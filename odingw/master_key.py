"""Where the master keys come from, and which of them must not sign."""

import os
import secrets
from base64 import b64encode
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

import attrs

from odingw.config import Config
from odingw.config.parts import is_within_reach
from odingw.errors import ConfigError, KeyMaterialError
from odingw.escapes import in_text
from odingw.secret_files import UnsafeFileError, read_secret
from odingw.tokens import decode_master_keys, master_key_lines

FILE_NAME: Final = "odingw.masterkey"

NEW_KEY: Final = "head -c 32 /dev/urandom | base64"
"""A command that makes a master key."""

_BYTES: Final = 32
_NAMED: Final = 10
"""Servers that a line names."""

_PUBLISHED: Final = frozenset(
    {
        # The existing gateway's documentation shows it, and so do the tests here.
        "762af4c3b25c8e9718f08bd2b16c68a42c8b3cb34c17f558",
        # It was in this repository.
        "dc241b2bf45b55be6041a2ac62f0fe0262a6d53ab1737f16",
    }
)
"""How the SHA-256 of keys begins that everybody can have."""


@attrs.frozen(repr=False)
class MasterKeys:
    """The master keys that a gateway would start with.

    Attributes:
        keys: the one that signs first; none: one is to be made in the file that ``where`` names.
        where: where they are kept, for people.
        warnings: what is wrong with them and yet no reason not to start, one line each.
    """

    keys: tuple[bytes, ...]
    where: str
    warnings: tuple[str, ...]


def find(config: Config, source: str, folder: Path, *, option: bool) -> MasterKeys:
    """Find the master keys, and make nothing.

    Args:
        config: the configuration.
        source: name of its file; empty: there is none.
        folder: where a file ``odingw.masterkey`` counts if nothing is configured.
        option: whether the command line gives the key.

    Raises:
        ConfigError: the file cannot be used, or the key that would sign is a published one and
            others can reach an endpoint.
    """
    gateway = config.gateway
    keys = gateway.decoded_master_keys()
    # What to do to replace the first one.
    change = "name both in gateway.master_keys"
    if not keys:
        path = folder / FILE_NAME
        where = in_text(str(path))
        keys = _load(path) if os.path.lexists(path) else ()
        change = "write it into that file as the first line, above the present one"
    elif option:
        where = "--masterkey"
    elif gateway.master_key_file is not None:
        where = in_text(str(gateway.master_key_file))
        change = "write it into that file as the first line, above the present one"
    else:
        where = f"{source}: gateway.{'master_key' if gateway.master_key else 'master_keys'}"
    warnings = (*_published(config, keys, where, change), *_short(keys, where, change))
    return MasterKeys(keys, where, warnings)


def make(folder: Path) -> tuple[bytes, ...]:
    """Make a master key and keep it in a new file in a folder, ``odingw.masterkey`` (mode 0600).

    If another process has just done so, its key is returned.

    Raises:
        ConfigError: the file cannot be written.
    """
    path = folder / FILE_NAME
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _load(path)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot make the master key file: {error.strerror}; "
            "start in a writable folder, or configure gateway.master_key_file"
        ) from None
    key = secrets.token_bytes(_BYTES)
    with os.fdopen(descriptor, "wb") as file:
        file.write(b64encode(key) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return (key,)


def is_published(key: bytes) -> bool:
    """Tell whether this is a key that a documentation or a repository shows to everybody."""
    return any(sha256(key).hexdigest().startswith(known) for known in _PUBLISHED)


def without_master_key(addresses: Sequence[str]) -> str:
    """Return what to warn of where servers have keys of a master key that nobody knows any more."""
    names = ", ".join(map(in_text, addresses[:_NAMED]))
    if len(addresses) > _NAMED:
        names += f" and {len(addresses) - _NAMED} more"
    return (
        f"{names}: given a key that is derived from a master key that is not configured, so "
        "clients may be refused there; add that master key after the first one "
        "(gateway.master_keys, or the next line of the file), or restart the server"
    )


def _published(config: Config, keys: tuple[bytes, ...], where: str, change: str) -> Iterator[str]:
    """Refuse a published key that signs for others, and yield warnings of those that count.

    Raises:
        ConfigError: the first key is published, and an endpoint can be reached from elsewhere.
    """
    listen = config.listen
    reached = [
        endpoint
        for endpoint in (*listen.public, *listen.internal, *listen.admin)
        if is_within_reach(endpoint)
    ]
    remedy = (
        f"make a new one ({NEW_KEY}), {change}, and restart the gateway, then the servers one by "
        'one ("Replacing the master key" in docs/security.rst)'
    )
    if keys and is_published(keys[0]):
        if reached:
            raise ConfigError(
                f"{where}: this master key is published, so everybody can sign room tokens, and "
                f"others can reach {', '.join(map(in_text, reached))}; {remedy}"
            )
        yield (
            f"THE MASTER KEY IS PUBLISHED ({where}): everybody can sign room tokens for your "
            f"servers; it is taken as long as all endpoints are this host's own; {remedy}"
        )
    if any(map(is_published, keys[1:])):
        yield (
            f"AN OLDER MASTER KEY IS PUBLISHED ({where}): everybody can sign room tokens for "
            "servers that have a key of it; restart those one by one, and take it out when "
            "odingw_servers_with_older_key is 0"
        )


def _short(keys: tuple[bytes, ...], where: str, change: str) -> Iterator[str]:
    for number, key in enumerate(keys, 1):
        if len(key) < _BYTES:
            yield (
                f"{where}: master key {number} has {len(key)} bytes, and whoever guesses it can "
                f"sign room tokens; make one of {_BYTES} ({NEW_KEY}), and {change}"
            )


def _load(path: Path) -> tuple[bytes, ...]:
    remedy = "restore it from a backup, or move it away to begin with a new key"
    try:
        # An empty file must not stand for no key.
        return decode_master_keys(master_key_lines(read_secret(path).decode()) or ("",))
    except UnsafeFileError as error:
        what, remedy = str(error), ""
    except KeyMaterialError as error:
        what = str(error)
    except ValueError:
        what = "it holds no base64 key"
    except OSError as error:
        what = error.strerror or str(error)
    text = f"{path}: cannot use the master key file: {what}"
    raise ConfigError(f"{text}; {remedy}" if remedy else text)
