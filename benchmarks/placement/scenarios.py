"""What happens in each scenario, and the targets that the product's rule is held to.

All times are seconds from the start of a run, all levels fractions of the capacity of the servers
that are there at the start.
"""

from typing import Final, NamedTuple

from msgspec import Struct

EVENT: Final = 600.0
"""When the warm-up ends: what a scenario is about happens, and measuring begins."""

END: Final = 1200.0
"""When a run ends."""

MEAN_STAY: Final = 400.0
"""Mean of the time that a client stays, which is distributed exponentially."""


class Fleet(Struct, frozen=True):
    """A fleet of servers of 1, 2 and 4 times a base size.

    Attributes:
        servers: how many.
        capacity: clients that all of them carry together at load 1.
    """

    servers: int
    capacity: int


FLEETS: Final = (Fleet(40, 28_000), Fleet(8, 17_000))
"""Many servers on which a large room weighs heavily, and few on which it does not."""


class Target(NamedTuple):
    """What is wanted of the product's rule in one scenario with one fleet.

    Attributes:
        peak: most by which its hottest server may exceed the ideal's, a fraction.
        excess: most that its excess may be, as a fraction of the existing rule's.
    """

    peak: float
    excess: float


class Scenario(Struct, frozen=True, kw_only=True):
    """One scenario. What it does not name does not happen.

    Attributes:
        name: for people.
        level: mean number of clients, once the crowd has come if there is one.
        busy: mean number of clients during the first part of the warm-up, who then all leave.
        crowd: joins of a flash crowd.
        crowd_rooms: new rooms that the crowd goes to.
        crowd_time: seconds in which it comes.
        joining: fraction of the servers that are not there before the event.
        dying: fraction of the servers that die at the event.
        drained: fraction of the servers that are drained at the event.
        noise: standard deviation of a report's error, as a fraction of the load.
        bend: weight of the square in the load of a server, 0: load is clients over capacity.
        idle_load: mean of the load that a server reports without any client.
        targets: by the number of servers.
        halves_overload: whether joins above 100 % are to be at most half of the existing rule's.
        of_existing: most that the hottest server may be, as a multiple of the existing rule's.
    """

    name: str
    level: float
    busy: float = 0.0
    crowd: int = 0
    crowd_rooms: int = 0
    crowd_time: float = 5.0
    joining: float = 0.0
    dying: float = 0.0
    drained: float = 0.0
    noise: float = 0.0
    bend: float = 0.0
    idle_load: float = 0.0
    targets: dict[int, Target] = {}
    halves_overload: bool = False
    of_existing: float | None = None

    def load(self, fill: float) -> float:
        """Return the load of a server whose clients are this fraction of its capacity."""
        return fill * (1 - self.bend + self.bend * fill)


SCENARIOS: Final = (
    Scenario(
        name="steady",
        level=0.6,
        targets={40: Target(0.02, 0.40), 8: Target(0.02, 0.12)},
    ),
    Scenario(
        name="flash crowd",
        level=0.85,
        crowd=10_000,
        crowd_rooms=2_000,
        targets={40: Target(0.06, 0.42), 8: Target(0.06, 0.15)},
    ),
    Scenario(
        name="servers join",
        level=0.8,
        joining=0.2,
        targets={40: Target(0.02, 0.45), 8: Target(0.02, 0.60)},
    ),
    Scenario(
        name="servers die",
        level=0.6,
        dying=0.1,
        targets={40: Target(0.04, 0.45), 8: Target(0.04, 0.15)},
    ),
    Scenario(
        name="drain",
        level=0.5,
        drained=1 / 3,
        targets={40: Target(0.02, 0.38), 8: Target(0.02, 0.12)},
    ),
    Scenario(
        name="noisy",
        level=0.65,
        noise=0.1,
        bend=0.4,
        targets={40: Target(0.06, 0.50), 8: Target(0.12, 0.38)},
    ),
    Scenario(
        name="nearly full",
        level=0.95,
        halves_overload=True,
        targets={40: Target(0.0, 0.65), 8: Target(0.01, 0.40)},
    ),
    Scenario(
        name="idle, cost kept",
        level=0.03,
        busy=0.5,
        idle_load=0.01,
        targets={40: Target(0.20, 0.85), 8: Target(0.20, 0.30)},
    ),
    Scenario(
        name="idle, cost unknown",
        level=0.03,
        idle_load=0.01,
        of_existing=1.2,
    ),
)
