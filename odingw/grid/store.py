"""The interface between the gateway and the place where grids' state lives.

Implementations are in :mod:`odingw.state`. What a store does for a call that others must be able to
rely on afterwards (placing a room, taking in a report, queueing a task) may take time: such methods
return the result, or an awaitable of it. Everything else is answered from what the process knows.
"""

from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence, Set
from typing import Final, Protocol, TypeAlias, TypeVar

from odingw.grid.tasks import Delivery
from odingw.grid.values import (
    Admission,
    Command,
    Event,
    Placed,
    Reported,
    RoomView,
    ServerReport,
    ServerView,
    UsageView,
)

T = TypeVar("T")

PAGE: Final = 500
"""How many rooms a page of them has."""

Eventual: TypeAlias = T | Awaitable[T]
"""A value, or an awaitable of it."""


class GridStore(Protocol):
    """The grid of one pool. Times are seconds by the gateway's steady clock."""

    def connect(self, admission: Admission, now: float) -> Eventual[Placed]:
        """Admit a client and find the server for its room.

        Raises:
            Refused: a limit, a fault of ``rid``, a ban, no server, or the store is unavailable.
        """

    def report(self, report: ServerReport, now: float, *, take: bool = False) -> Eventual[Reported]:
        """Take in what a server says of itself and its rooms.

        Args:
            report: what it says.
            now: the time.
            take: also put the tasks that may be sent to it now in flight.
        """

    def command(self, command: Command, now: float) -> Eventual[None]:
        """Queue a task for the room's server and keep the ban that comes with it.

        Raises:
            Refused: the room is nowhere, the queue or the bans are full, or the store is
                unavailable.
        """

    def take(self, address: str) -> Eventual[Delivery | None]:
        """Put the tasks that may be sent to a server now in flight; None if there are none."""

    def acknowledge(self, delivery: Delivery) -> None:
        """Forget tasks that arrived."""

    def give_back(self, delivery: Delivery) -> Eventual[tuple[Event, ...]]:
        """Queue tasks that did not arrive again, in the order in which all were accepted."""

    def drain(self, address: str, drained: bool) -> Eventual[None]:
        """Let a server take no new rooms, or take them again.

        Raises:
            Refused: there is no such server.
        """

    def disable(self, address: str) -> Eventual[None]:
        """Write a server off until it reports again; its rooms may move.

        Raises:
            Refused: there is no such server.
        """

    def give_key(self, address: str, kid: str, now: float) -> Eventual[str]:
        """Remember which key a server is given, before it is.

        Args:
            address: the server's.
            kid: id of the key that it should be given.
            now: the time.

        Returns:
            The id of the key to give: ``kid``, or the one that it had before, if the store can
            remember nothing new at present.
        """

    def address_of_key(self, kid: str) -> str | None:
        """Return the address of the attached server that was given the key with this id."""

    def refresh(self) -> Awaitable[None] | None:
        """Learn of servers and keys that came up elsewhere; None: there can be nothing new."""

    def addresses(self) -> Set[str]:
        """Return the addresses of all servers."""

    def servers(self) -> Iterable[ServerView]:
        """Yield all servers, as they were a second ago at most."""

    def pages(self) -> AsyncIterator[Sequence[RoomView]]:
        """Yield all rooms that are reported or reserved, in pages of about :data:`PAGE`.

        Calls in between may change them.
        """


class Store(Protocol):
    """All pools' grids."""

    @property
    def trouble(self) -> str:
        """Why the store does not do all it should at present, for people; empty: all is well."""

    @property
    def longest_step(self) -> float:
        """The longest time for which storing held the reactor up, in seconds of processor time."""

    @property
    def skipped(self) -> int:
        """How many rows of what is stored could not be read."""

    def start(self, now: float) -> None:
        """Begin to work; to be called before anything else, and after a process has forked.

        Raises:
            ConfigError: what is configured cannot be used.
        """

    def ready(self) -> Awaitable[None]:
        """Wait until what is stored is known here, for the first time."""

    def stop(self) -> Awaitable[None]:
        """End, and wait until what is left is stored."""

    def pool(self, name: str) -> GridStore:
        """Return the grid of a pool, always the same one."""

    def pools(self) -> Iterable[tuple[str, GridStore]]:
        """Yield the pools that are in use, by name."""

    def usage(self) -> Iterable[UsageView]:
        """Yield every customer that uses anything, demo users as one."""

    def tick(self, now: float) -> tuple[Event, ...]:
        """Do the periodic work; to be called every :attr:`GridSettings.tick` seconds."""
