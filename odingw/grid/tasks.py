"""Tasks for ODIN servers, and the queue that loses none and repeats a bad one only so often.

A task is *waiting*, or *in flight* in exactly one delivery. A delivery that arrived is acknowledged
and its tasks are gone; one that did not is given back and its tasks return to their place. Nothing
else is sent while a delivery is in flight, so that tasks cannot overtake each other. A queue is in
the order in which tasks were accepted, even where some come from other servers' queues.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Set
from operator import attrgetter
from typing import Annotated, Final, TypeAlias, TypeVar

from msgspec import Meta, Raw, Struct
from msgspec.json import Encoder

from odingw.grid.rooms import BaseId, RoomId

MAX_RETURNS = 3
"""A task that came back this often is sent alone; coming back once more, it is dropped."""

MAX_BYTES: Final = 4 * 2**20
"""How many bytes of tasks one customer may have in one server's queue."""

DELIVERY_BYTES: Final = 2**20
"""A delivery takes no further task once it holds so many bytes."""

_NUMBER: Final = attrgetter("number")

_encode: Final = Encoder().encode

ByteList: TypeAlias = Annotated[
    Raw, Meta(extra_json_schema={"type": "array", "items": {"type": "integer"}})
]
"""Bytes as they go over the wire, a JSON list of numbers: as objects they would take far more."""

K = TypeVar("K")


class Duration(Struct, frozen=True, gc=False):
    """A duration as ODIN servers write it: whole seconds, and nanoseconds below one."""

    secs: int
    nanos: int

    @classmethod
    def of(cls, seconds: float) -> "Duration":
        """Convert from seconds, rounded to the nanosecond."""
        secs, nanos = divmod(round(seconds * 1_000_000_000), 1_000_000_000)
        return cls(secs, nanos)


NO_TIME = Duration(0, 0)


class RoomClose(Struct, frozen=True, gc=False, tag_field="task", tag="RoomClose"):
    """Close a room and keep it closed for a while."""

    id: RoomId
    ban_time: Duration = NO_TIME


class RoomUpdate(Struct, frozen=True, gc=False, tag_field="task", tag="RoomUpdate"):
    """Replace a room's user data, given as a list of byte values."""

    id: RoomId
    user_data: ByteList


class RoomBanClient(Struct, frozen=True, gc=False, tag_field="task", tag="RoomBanClient"):
    """Throw a user out of a room and keep them out for a while."""

    id: RoomId
    user_id: str
    ban_time: Duration = NO_TIME


class RoomSendMessage(Struct, frozen=True, gc=False, tag_field="task", tag="RoomSendMessage"):
    """Send a message, given as a list of byte values, to a user in a room."""

    id: RoomId
    user_id: str
    message: ByteList


TaskBody: TypeAlias = RoomClose | RoomUpdate | RoomBanClient | RoomSendMessage
"""A task as it stands in the reply to a report (wire reference, section 4)."""


def byte_list(values: Iterable[int]) -> Raw:
    """Return values of bytes as they go over the wire."""
    return Raw(_encode(list(values)))


def size_of(body: TaskBody) -> int:
    """Return how many bytes a task takes in a reply."""
    return len(_encode(body))


class Task:
    """A task in a queue.

    Attributes:
        body: what goes over the wire.
        customer: who asked for it.
        base: the base whose server it is for.
        number: its place in the order in which the pool's tasks were accepted.
        returned: how often it was sent without arriving.
        server: address of the server in whose queue it is; empty: it is in none.
        size: how many bytes it takes in a reply.
    """

    __slots__ = ("base", "body", "customer", "number", "returned", "server", "size")

    def __init__(
        self, body: TaskBody, customer: str, base: BaseId, number: int, returned: int = 0
    ) -> None:
        self.body = body
        self.customer = customer
        self.base = base
        self.number = number
        self.returned = returned
        self.server = ""
        self.size = size_of(body)


class Delivery(Struct, frozen=True, eq=False):
    """Tasks on their way in one reply.

    Attributes:
        address: the server they are sent to.
        tasks: in the order in which they were asked for.
    """

    address: str
    tasks: tuple[Task, ...]


class TaskQueue:
    """The tasks of one server, oldest first.

    Args:
        address: the server's.
        of_base: how many tasks each base has in all queues of the pool, kept up to date here.
        changed: told of each task that comes or goes.
    """

    __slots__ = (
        "_bytes_of_customer",
        "_changed",
        "_in_flight",
        "_of_base",
        "_of_customer",
        "_waiting",
        "address",
    )

    def __init__(
        self, address: str, of_base: dict[BaseId, int], changed: Callable[[Task], None]
    ) -> None:
        self.address = address
        self._of_base = of_base
        self._changed = changed
        self._waiting: deque[Task] = deque()
        self._in_flight: Delivery | None = None
        self._of_customer: dict[str, int] = {}
        self._bytes_of_customer: dict[str, int] = {}

    def __len__(self) -> int:
        """Count all tasks, those in flight too."""
        return len(self._waiting) + (len(self._in_flight.tasks) if self._in_flight else 0)

    def of_customer(self, customer: str) -> int:
        """Count a customer's tasks, those in flight too."""
        return self._of_customer.get(customer, 0)

    def bytes_of_customer(self, customer: str) -> int:
        """Return how many bytes a customer's tasks have, those in flight too."""
        return self._bytes_of_customer.get(customer, 0)

    def append(self, task: Task) -> None:
        """Add a task that is newer than all others."""
        self._waiting.append(task)
        self._count(task, 1)

    def merge(self, tasks: Iterable[Task]) -> None:
        """Put tasks in their places."""
        tasks = list(tasks)
        if tasks:
            self._waiting = deque(sorted((*self._waiting, *tasks), key=_NUMBER))
            for task in tasks:
                self._count(task, 1)

    def take(self) -> Delivery | None:
        """Put in flight what may be sent now; None if there is nothing, or something is in flight.

        A task that came back too often goes alone, whatever waits before or behind it. What would
        make the reply too large waits for the next one.
        """
        if self._in_flight is not None or not self._waiting:
            return None
        batch = [self._waiting.popleft()]
        if batch[0].returned < MAX_RETURNS:
            size = batch[0].size
            while self._waiting and self._waiting[0].returned < MAX_RETURNS:
                size += self._waiting[0].size
                if size > DELIVERY_BYTES:
                    break
                batch.append(self._waiting.popleft())
        self._in_flight = Delivery(self.address, tuple(batch))
        return self._in_flight

    def acknowledge(self, delivery: Delivery) -> bool:
        """Forget the tasks of a delivery that arrived; False if it is not the one in flight."""
        if delivery is not self._in_flight:
            return False
        self._in_flight = None
        for task in delivery.tasks:
            self._count(task, -1)
        return True

    def give_back(self, delivery: Delivery) -> tuple[tuple[Task, ...], tuple[Task, ...]] | None:
        """End a delivery that did not arrive.

        Returns:
            The tasks to queue again (the caller decides where: a room may have moved meanwhile),
            and those that came back too often; None if the delivery is not the one in flight.
        """
        if not self.acknowledge(delivery):
            return None
        for task in delivery.tasks:
            task.returned += 1
        again = tuple(task for task in delivery.tasks if task.returned <= MAX_RETURNS)
        dropped = tuple(task for task in delivery.tasks if task.returned > MAX_RETURNS)
        return again, dropped

    def recall(self) -> None:
        """Let the tasks in flight wait again, as if they had never been sent."""
        if self._in_flight is not None:
            self._waiting.extendleft(reversed(self._in_flight.tasks))
            self._in_flight = None

    def remove(self, bases: Set[BaseId]) -> list[Task]:
        """Take out the waiting tasks of some bases, in order, for other servers."""
        taken = [task for task in self._waiting if task.base in bases]
        if taken:
            self._waiting = deque(task for task in self._waiting if task.base not in bases)
            for task in taken:
                self._count(task, -1)
        return taken

    def put(self, task: Task) -> None:
        """Put a task in its place."""
        if self._waiting and self._waiting[-1].number > task.number:
            self.merge((task,))
        else:
            self.append(task)

    def drop(self, number: int) -> None:
        """Give up a waiting task, if it is here."""
        for task in self._waiting:
            if task.number == number:
                self._waiting.remove(task)
                self._count(task, -1)
                return

    def clear(self) -> None:
        """Give up all tasks, those in flight too."""
        if self._in_flight is not None:
            self.acknowledge(self._in_flight)
        while self._waiting:
            self._count(self._waiting.popleft(), -1)

    def tasks(self) -> Iterator[Task]:
        """Yield all tasks, oldest first."""
        if self._in_flight is not None:
            yield from self._in_flight.tasks
        yield from self._waiting

    def _count(self, task: Task, step: int) -> None:
        task.server = self.address if step > 0 else ""
        self._changed(task)
        _add(self._of_customer, task.customer, step)
        _add(self._bytes_of_customer, task.customer, step * task.size)
        _add(self._of_base, task.base, step)


def _add(counts: dict[K, int], key: K, step: int) -> None:
    count = counts.get(key, 0) + step
    if count:
        counts[key] = count
    else:
        del counts[key]
