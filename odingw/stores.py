"""Makes the store that the configuration asks for."""

import secrets
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from odingw.config import State
from odingw.errors import ConfigError
from odingw.grid.store import Store
from odingw.grid.values import GridSettings
from odingw.ops.metrics import Metrics
from odingw.state import backup
from odingw.state.journal_file import JournalBrokenError, JournalFile, check_path
from odingw.state.known_key import KnownKey, fingerprint, known_key
from odingw.state.local import LocalStore
from odingw.state.memory import MemoryStore
from odingw.state.slices import Slices
from odingw.state.thread import OneThread
from odingw.tokens import server_key

_WAYS_OUT: Final = (
    "nothing was made or changed: restore the old key, or put the new key on the first line of the "
    "file and the old one on the second (or name both in gateway.master_keys, the new one first), "
    "and restart the servers one by one; if the old one is lost, start once with --new-masterkey, "
    "and restart all servers"
)


def make_store(
    state: State,
    settings: GridSettings,
    pick: Callable[[int], int],
    reactor: Any,
    metrics: Metrics,
    clock: Callable[[], float],
    master_keys: Sequence[bytes],
    internal: str,
    fatal: Callable[[str], None],
) -> Store:
    """Return the store; nothing is opened before its ``start`` is called.

    Args:
        state: the section ``[state]``.
        settings: the numbers that the grids' rules depend on.
        pick: given n, a random number from 0 to n - 1.
        reactor: a Twisted reactor.
        metrics: told how many seconds each write took, and what failed.
        clock: the gateway's steady clock.
        master_keys: of which gateways that share a store have the first one in common, or are
            about to.
        internal: the endpoints that serve ``/internal``; a file remembers them.
        fatal: called with one line if the store turns out not to be for this gateway.

    Raises:
        ConfigError: a file that the configuration names cannot be used.
    """
    address = state.address
    if address.shared:
        # Few need it, and it takes a while to load.
        from odingw.state.redis.connector import Connector
        from odingw.state.redis.store import RedisStore

        return RedisStore(
            settings,
            pick,
            state.prefix,
            master_keys,
            f"{socket.gethostname()}-{secrets.token_hex(8)}",
            Connector(state, reactor),
            reactor,
            clock,
            fatal,
            metrics,
            spread=address.kind == "cluster",
        )
    if address.path is None:
        return MemoryStore(settings, pick, Slices(reactor))
    path = address.path
    thread = OneThread(reactor, "journal")
    return LocalStore(
        settings,
        pick,
        lambda: JournalFile(
            path,
            state.synchronous,
            fingerprint=fingerprint(master_keys[0]),
            internal=internal,
        ),
        thread,
        reactor,
        metrics.stored,
        thread.stop,
    )


def check_store(state: State) -> None:
    """Look whether the store can be used, without opening or making anything, or connecting.

    Raises:
        ConfigError: it cannot.
    """
    address = state.address
    if address.path is not None:
        check_path(address.path)
    elif address.tls:
        from odingw.state.redis.tls import client_options

        client_options(state, address.nodes[0][0])


def back_up(state: State, target: Path) -> int:
    """Copy what a store holds to a new file, while gateways use it; return how many records.

    The file is a journal, whatever the store is.

    Raises:
        ConfigError: that cannot be done; the text says why, and no file is left.
    """
    return backup.back_up(_journal(state), target)


def restore(state: State, source: Path) -> tuple[int, Path | None]:
    """Put a backup in the place of what a store holds, which no gateway may be using.

    Returns:
        How many records there are now, and where the files went that were there; None: there were
        none.

    Raises:
        ConfigError: that cannot be done; the text says why, and nothing was changed.
    """
    return backup.restore(_journal(state), source)


def _journal(state: State) -> Path:
    address = state.address
    if address.shared:
        raise ConfigError("state.url: backups of a Redis are not made yet; use its own files")
    if address.path is None:
        raise ConfigError('state.url: "memory:" keeps nothing that could be backed up')
    return address.path


def check_master_keys(state: State, keys: Sequence[bytes], missing: Path) -> KnownKey:
    """Look whether the servers that a journal knows have keys of one of these master keys.

    As with gateways that share a Redis, the one that signed last must be among them. Nothing is
    opened for writing, or made.

    Args:
        state: the section ``[state]``.
        keys: the master keys; none: one is about to be made.
        missing: where it would be made.

    Returns:
        What the journal knows.

    Raises:
        ConfigError: they have not; the text says what to do.
    """
    path = state.address.path
    if path is None:
        return KnownKey()
    try:
        known = known_key(path)
    except JournalBrokenError as error:
        if keys:
            # The start replaces a damaged file, and learns of servers from their reports.
            return KnownKey()
        raise ConfigError(
            f"{missing}: the file with the master key is missing, and the state cannot tell "
            f"whether servers have keys of it ({error}); {_WAYS_OUT}"
        ) from None
    if not keys and (known.fingerprint or known.given):
        raise ConfigError(
            f"{missing}: the file with the master key is missing, and {_servers(known)} in {path} "
            f"belong to it; {_WAYS_OUT}"
        )
    if known.given and not _is_among(known, keys):
        raise ConfigError(
            f"state.url: {_servers(known)} in {path} have keys derived from a master key that is "
            f"not configured; {_WAYS_OUT}"
        )
    return known


def _servers(known: KnownKey) -> str:
    count = len(known.given)
    return f"{count} server{'s' * (count != 1)}" if count else "the state"


def _is_among(known: KnownKey, keys: Sequence[bytes]) -> bool:
    if known.fingerprint:
        return known.fingerprint in map(fingerprint, keys)
    # An older version's file: one server that has a key of these tells.
    return any(
        server_key(key, address).kid == kid for address, kid in known.given.items() for key in keys
    )


def known_servers(state: State) -> KnownKey:
    """Return what a file knows of servers, as far as it can be read beside a gateway that runs.

    What is in a Redis, the start of a gateway tells.
    """
    path = state.address.path
    if path is None:
        return KnownKey()
    try:
        return known_key(path)
    except JournalBrokenError:
        # The start of a gateway says what is wrong with it.
        return KnownKey()


def servers_without(known: KnownKey, keys: Sequence[bytes]) -> list[str]:
    """Return the addresses of the known servers whose keys come from none of these master keys."""
    return [
        address
        for address, kid in known.given.items()
        if address in known.servers and not any(server_key(key, address).kid == kid for key in keys)
    ]
