"""Finding rooms: what is found, in which order, and in which steps."""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from odingw.errors import RpcError
from odingw.web.monitor_rooms import (
    LONGEST_NAME,
    LONGEST_SEARCH,
    RoomQuery,
    RoomSearch,
    RoomsPage,
    read_query,
)
from tests.grids import Room, admission, report, store


class Ticking:
    """A clock that each look moves on by a millisecond."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        self.now += 0.001
        return self.now


class Later:
    """Calls that a reactor makes when it comes round."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def __call__(self, act: Callable[[], None]) -> "Later.Call":
        """Take a call."""
        self.calls.append(act)
        return self.Call(self.calls, act)

    def turn(self) -> None:
        """Make the calls that were taken until now."""
        due, self.calls[:] = self.calls[:], []
        for act in due:
            act()

    class Call:
        """A call that was taken."""

        def __init__(self, calls: list[Callable[[], None]], act: Callable[[], None]) -> None:
            self.cancel = lambda: calls.remove(act)


class SearchCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.later = Later()
        self.store: Any = store()
        self.search = RoomSearch(self.store, self.later, clock=Ticking())

    def begin(self, **query: Any) -> "Deferred[RoomsPage]":
        return Deferred.fromCoroutine(self.search.find(RoomQuery(**query)))

    def find(self, **query: Any) -> RoomsPage:
        found = self.begin(**query)
        while not found.called:
            self.later.turn()
        return self.successResultOf(found)

    def names(self, **query: Any) -> list[str]:
        return [room.id[1] for room in self.find(**query).rooms]


class FindTests(SearchCase):
    def setUp(self) -> None:
        super().setUp()
        grid = self.store.pool("")
        grid.report(
            report(
                "a:1",
                Room(("acme", "Lobby"), 5),
                Room(("acme", "raid"), 9),
                Room(("other", "lobby"), 1, "umbrella"),
            ),
            0.0,
        )
        grid.report(report("b:1", Room(("acme", "arena"), 7)), 0.0)
        grid.connect(admission("raid", user="new"), 1.0)
        self.store.pool("eu").report(report("a:1", Room(("acme", "lobby"), 3)), 0.0)

    def test_the_fullest_come_first(self) -> None:
        page = self.find()
        self.assertEqual([9, 7, 5, 3, 1], [room.peers for room in page.rooms])
        self.assertEqual((5, 5), (page.total, page.matches))
        raid = page.rooms[0]
        self.assertEqual(
            ("", ("acme", "raid"), "acme", "a:1", 1, True),
            (raid.pool, raid.id, raid.customer, raid.server, raid.reservations, raid.reported),
        )

    def test_search_in_name_namespace_and_customer_whatever_the_case(self) -> None:
        self.assertEqual(["Lobby", "lobby", "lobby"], self.names(search="lobby"))
        self.assertEqual(["lobby"], self.names(search="other/"))
        self.assertEqual(["lobby"], self.names(search="umbrella"))
        page = self.find(search="nothing")
        self.assertEqual((5, 0, []), (page.total, page.matches, page.rooms))

    def test_by_server_and_pool(self) -> None:
        self.assertEqual(["raid", "Lobby", "lobby", "lobby"], self.names(server="a:1"))
        self.assertEqual(["lobby"], self.names(server="a:1", pool="eu"))
        self.assertEqual([], self.names(pool="us"))

    def test_sorting(self) -> None:
        for sort, expected in (
            ("room", ["Lobby", "arena", "lobby", "lobby", "raid"]),
            ("customer", ["Lobby", "arena", "lobby", "raid", "lobby"]),
            ("server", ["Lobby", "lobby", "raid", "lobby", "arena"]),
            ("reservations", ["Lobby", "arena", "lobby", "lobby", "raid"]),
        ):
            self.assertEqual(expected, self.names(sort=sort, descending=False), sort)
        self.assertEqual("raid", self.names(sort="room")[0])

    def test_part_by_part(self) -> None:
        page = self.find(limit=2, offset=2)
        self.assertEqual([5, 3], [room.peers for room in page.rooms])
        self.assertEqual(5, page.matches)
        self.assertEqual([], self.names(offset=5))

    def test_names_are_shown_up_to_a_length(self) -> None:
        self.store.pool("").report(report("c:1", Room(("acme", "x" * 9000), 99)), 0.0)
        (room,) = self.find(search="x" * 60).rooms
        self.assertEqual("x" * LONGEST_NAME + "…", room.id[1])


class StepTests(SearchCase):
    def setUp(self) -> None:
        super().setUp()
        rooms = [Room(("acme", f"room-{number:05}"), number) for number in range(20_000)]
        self.store.pool("").report(report("a:1", *rooms), 0.0)

    def test_others_have_their_turn_in_between(self) -> None:
        found = self.begin(limit=3)
        turns = 0
        while not found.called:
            self.later.turn()
            turns += 1
        self.assertGreater(turns, 10)
        page = self.successResultOf(found)
        self.assertEqual((20_000, 20_000), (page.total, page.matches))
        self.assertEqual([19_999, 19_998, 19_997], [room.peers for room in page.rooms])

    def test_who_leaves_ends_the_walk(self) -> None:
        found = self.begin()
        self.later.turn()
        found.cancel()
        found.addErrback(lambda _: None)
        self.assertEqual([], self.later.calls)

    def test_rooms_may_come_and_go_meanwhile(self) -> None:
        found = self.begin(limit=1)
        self.later.turn()
        self.store.pool("").connect(admission("another"), 0.0)
        self.store.pool("").report(report("a:1", Room(("acme", "room-00000"), 7)), 5.0)
        while not found.called:
            self.later.turn()
        page = self.successResultOf(found)
        self.assertEqual(1, len(page.rooms))
        self.assertTrue(0 < page.total <= 20_000)


class QueryTests(SynchronousTestCase):
    def test_defaults(self) -> None:
        self.assertEqual(RoomQuery(), read_query({}))

    def test_everything(self) -> None:
        self.assertEqual(
            RoomQuery(
                pool="eu",
                server="a:1",
                search="straße".casefold(),
                sort="room",
                descending=False,
                limit=7,
                offset=14,
            ),
            read_query(
                {
                    b"pool": [b"eu"],
                    b"server": [b"a:1"],
                    b"search": [b" STRASSE "],
                    b"sort": [b"room"],
                    b"order": [b"ascending"],
                    b"limit": [b"7"],
                    b"offset": [b"14"],
                }
            ),
        )

    def test_the_default_pool_can_be_named(self) -> None:
        self.assertEqual("", read_query({b"pool": [b""]}).pool)

    def test_what_is_wrong_is_named(self) -> None:
        for name, value in (
            ("limit", "0"),
            ("limit", "201"),
            ("limit", "-1"),
            ("limit", "1e2"),
            ("limit", "9" * 5000),
            ("offset", "2001"),
            ("offset", "٣"),
            ("sort", "password"),
            ("order", "up"),
            ("search", "x" * (LONGEST_SEARCH + 1)),
        ):
            error = self.assertRaises(RpcError, read_query, {name.encode(): [value.encode()]})
            self.assertTrue((error.data or {})["detail"].startswith(f"{name}: "), error.data)
