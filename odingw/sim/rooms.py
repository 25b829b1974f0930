"""The rooms that one simulated server carries, and what happens in them.

No clock: every method that depends on the time is told it, in unix seconds.
"""

from collections.abc import Iterator

import msgspec

from odingw.sim.roomtokens import JoinFault, JoinRefused, RoomClaims
from odingw.sim.tasks import (
    Duration,
    RoomBanClient,
    RoomClose,
    RoomId,
    RoomSendMessage,
    RoomUpdate,
    Task,
)


class Peer:
    """One client in one room.

    Attributes:
        room: the room.
        user: the user's id, possibly empty.
        messages: what the gateway had sent to the user, oldest first.
        gone: whether the peer has left, or was thrown out.
    """

    __slots__ = ("gone", "messages", "room", "user")

    def __init__(self, room: "Room", user: str) -> None:
        self.room = room
        self.user = user
        self.messages: list[bytes] = []
        self.gone = False

    def __repr__(self) -> str:
        return f"Peer(user={self.user!r}, room={self.room.id!r}, gone={self.gone})"


class Room:
    """A room.

    Attributes:
        id: namespace and name.
        customer: whose licence it counts for.
        opened: when the first peer came.
        peers: who is in it, oldest first (a dict for its order; the values say nothing).
        banned: until when which users are kept out; a room that closes forgets them.
        user_data: as last set by a task.
    """

    __slots__ = ("banned", "customer", "id", "opened", "peers", "user_data")

    def __init__(self, room_id: RoomId, customer: str, now: float) -> None:
        self.id = room_id
        self.customer = customer
        self.opened = now
        self.peers: dict[Peer, None] = {}
        self.banned: dict[str, float] = {}
        self.user_data = b""

    def __repr__(self) -> str:
        return f"Room({self.id!r}, peers={len(self.peers)})"


class RoomReport(msgspec.Struct, frozen=True, gc=False):
    """A room as a report shows it."""

    id: RoomId
    customer: str
    age: Duration
    peers: int


class Rooms:
    """All rooms of a server.

    Args:
        linger: seconds for which a room stays open when its last peer has left.
    """

    def __init__(self, linger: float) -> None:
        self._linger = linger
        self._rooms: dict[RoomId, Room] = {}
        self._empty: dict[RoomId, float] = {}
        self._closed_until: dict[RoomId, float] = {}
        self.peers = 0

    def __len__(self) -> int:
        """Count the open rooms."""
        return len(self._rooms)

    def __iter__(self) -> Iterator[Room]:
        """Yield the open rooms, oldest first."""
        return iter(self._rooms.values())

    def get(self, room_id: RoomId) -> Room | None:
        """Return an open room."""
        return self._rooms.get(room_id)

    def enter(self, claims: RoomClaims, name: str, now: float) -> Peer:
        """Let a client in, and open the room if it is the first.

        Args:
            claims: of the client's room token.
            name: which of the token's rooms.
            now: the time.

        Raises:
            JoinRefused: the room or the user is banned, or the room is another customer's.
        """
        room_id = (claims.nsp, name)
        if self._closed_until.get(room_id, now) > now:
            raise JoinRefused(JoinFault.ROOM_BANNED, "the room is banned")
        room = self._rooms.get(room_id)
        if room is None:
            room = self._rooms[room_id] = Room(room_id, claims.cid, now)
        elif room.customer != claims.cid:
            raise JoinRefused(JoinFault.CUSTOMER, f"the room belongs to {room.customer!r}")
        elif room.banned.get(claims.uid, now) > now:
            raise JoinRefused(JoinFault.USER_BANNED, "the user is banned from the room")
        self._empty.pop(room_id, None)
        peer = Peer(room, claims.uid)
        room.peers[peer] = None
        self.peers += 1
        return peer

    def leave(self, peer: Peer, now: float) -> None:
        """Take a peer out of its room; nothing happens if it is gone already."""
        if peer.gone:
            return
        peer.gone = True
        self.peers -= 1
        room = peer.room
        del room.peers[peer]
        if not room.peers:
            self._empty[room.id] = now

    def perform(self, task: Task, now: float) -> None:
        """Do what the gateway wants; what is for a room that is not open has no effect.

        A ban time holds for a room that is not open, too.
        """
        room = self._rooms.get(task.id)
        match task:
            case RoomClose():
                self._closed_until.pop(task.id, None)
                if task.ban_time.seconds:
                    self._closed_until[task.id] = now + task.ban_time.seconds
                if room is not None:
                    self._close(room)
            case RoomUpdate() if room is not None:
                room.user_data = bytes(task.user_data)
            case RoomBanClient() if room is not None:
                room.banned[task.user_id] = now + task.ban_time.seconds
                for peer in [peer for peer in room.peers if peer.user == task.user_id]:
                    self.leave(peer, now)
            case RoomSendMessage() if room is not None:
                for peer in room.peers:
                    if peer.user == task.user_id:
                        peer.messages.append(bytes(task.message))

    def sweep(self, now: float) -> None:
        """Close the rooms that have been empty for long enough, and forget bans that ended."""
        due = [room_id for room_id, since in self._empty.items() if now - since >= self._linger]
        for room_id in due:
            self._close(self._rooms[room_id])
        for room_id in [key for key, until in self._closed_until.items() if until <= now]:
            del self._closed_until[room_id]

    def report(self, now: float) -> list[RoomReport]:
        """Return all rooms as a report shows them."""
        return [
            RoomReport(
                room.id,
                room.customer,
                # A clock that is set back must not make a room younger than nothing.
                Duration.of(max(0.0, now - room.opened)),
                len(room.peers),
            )
            for room in self._rooms.values()
        ]

    def clear(self) -> None:
        """Close all rooms at once."""
        for room in list(self._rooms.values()):
            self._close(room)

    def _close(self, room: Room) -> None:
        for peer in room.peers:
            peer.gone = True
        self.peers -= len(room.peers)
        room.peers.clear()
        del self._rooms[room.id]
        self._empty.pop(room.id, None)
