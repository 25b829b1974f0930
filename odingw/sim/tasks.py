"""The tasks that a server takes from the reply to a report (wire reference, section 4).

Strict on purpose: a server of another make might not forgive what is not in the reference.
"""

from typing import Annotated, TypeAlias

import msgspec

from odingw.sim.wire import Misbehaviour

RoomId: TypeAlias = tuple[str, str]
"""Namespace and name of a room."""

_Bytes: TypeAlias = tuple[Annotated[int, msgspec.Meta(ge=0, le=255)], ...]


class Duration(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A duration: whole seconds, and nanoseconds below one second."""

    secs: Annotated[int, msgspec.Meta(ge=0)]
    nanos: Annotated[int, msgspec.Meta(ge=0, lt=1_000_000_000)]

    @classmethod
    def of(cls, seconds: float) -> "Duration":
        """Convert from seconds, 0 or more."""
        secs, nanos = divmod(round(seconds * 1_000_000_000), 1_000_000_000)
        return cls(secs, nanos)

    @property
    def seconds(self) -> float:
        """The same in seconds."""
        return self.secs + self.nanos / 1_000_000_000


class _Task(msgspec.Struct, frozen=True, tag_field="task", tag=True, forbid_unknown_fields=True):
    id: RoomId


class RoomClose(_Task, frozen=True):
    """Close a room, and keep it closed for a while."""

    ban_time: Duration


class RoomUpdate(_Task, frozen=True):
    """Replace a room's user data."""

    user_data: _Bytes


class RoomBanClient(_Task, frozen=True):
    """Throw a user out of a room, and keep them out for a while."""

    user_id: str
    ban_time: Duration


class RoomSendMessage(_Task, frozen=True):
    """Send a message to a user in a room."""

    user_id: str
    message: _Bytes


Task: TypeAlias = RoomClose | RoomUpdate | RoomBanClient | RoomSendMessage
"""Something that a server is told to do."""


class _Reply(msgspec.Struct, frozen=True):
    tasks: tuple[Task, ...]


def read_tasks(result: object) -> tuple[Task, ...]:
    """Read the result of ``sfu.Report``: tasks in the order in which they are to be done.

    Raises:
        Misbehaviour: the result is none; the text names the place.
    """
    try:
        return msgspec.convert(result, _Reply).tasks
    except msgspec.ValidationError as wrong:
        raise Misbehaviour(f"result of sfu.Report: {wrong}") from None
