"""Makes the store that the configuration asks for."""

import secrets
import socket
from collections.abc import Callable, Sequence
from typing import Any

from odingw.config import State
from odingw.grid.store import Store
from odingw.grid.values import GridSettings
from odingw.state.journal_file import JournalFile, check_path, count_servers
from odingw.state.local import LocalStore
from odingw.state.memory import MemoryStore
from odingw.state.slices import Slices
from odingw.state.thread import OneThread


def make_store(
    state: State,
    settings: GridSettings,
    pick: Callable[[int], int],
    reactor: Any,
    measured: Callable[[float | None], None],
    clock: Callable[[], float],
    master_keys: Sequence[bytes],
    fatal: Callable[[str], None],
) -> Store:
    """Return the store; nothing is opened before its ``start`` is called.

    Args:
        state: the section ``[state]``.
        settings: the numbers that the grids' rules depend on.
        pick: given n, a random number from 0 to n - 1.
        reactor: a Twisted reactor.
        measured: told how many seconds each write took, or of None if it failed.
        clock: the gateway's steady clock.
        master_keys: of which gateways that share a store have the first one in common, or are
            about to.
        fatal: called with one line if the store turns out not to be for this gateway.

    Raises:
        ConfigError: a file that the configuration names cannot be used.
    """
    address = state.address
    if address.shared:
        # Few need it, and it takes a while to load.
        from odingw.state.redis.fleet import Fleet
        from odingw.state.redis.link import Connector
        from odingw.state.redis.store import RedisStore

        return RedisStore(
            settings,
            pick,
            Fleet(state.prefix, master_keys[0], older=master_keys[1:]),
            f"{socket.gethostname()}-{secrets.token_hex(8)}",
            Connector(address, state.ca_file, reactor),
            reactor,
            clock,
            fatal,
            measured,
        )
    if address.path is None:
        return MemoryStore(settings, pick, Slices(reactor))
    path = address.path
    thread = OneThread(reactor, "journal")
    return LocalStore(
        settings,
        pick,
        lambda: JournalFile(path, state.synchronous),
        thread,
        reactor,
        measured,
        thread.stop,
    )


def check_store(state: State) -> None:
    """Look whether the store can be used, without opening or making anything.

    Raises:
        ConfigError: it cannot.
    """
    path = state.address.path
    if path is not None:
        check_path(path)


def known_servers(state: State) -> int:
    """Return how many servers a file knows, as far as it can be read beside a gateway that runs.

    What is in a Redis, the start of a gateway tells.
    """
    path = state.address.path
    return 0 if path is None else count_servers(path)
