"""Watching TURN servers: the rules, in a made-up network."""

import os
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, TypeAlias

from twisted.trial.unittest import SynchronousTestCase

from odingw.turn.stun import Address, Kind, Message, Method, encode
from odingw.turn.watch import ServerHealth, ServerWatch
from tests.turn_net import IPV4, Log, Net, alive, answer, dead, uris

Reply: TypeAlias = Callable[[Message], tuple[bytes, Address]]

A, B = ("192.0.2.1", 3478), ("192.0.2.2", 3478)
URI_A, URI_B = "turn:192.0.2.1", "turn:192.0.2.2"


def refuses_allocate(request: Message, address: Address) -> Sequence[tuple[bytes, Address]]:
    """Answer as ``coturn --no-stun`` does."""
    return [(answer(request, Kind.ERROR), address)] if request.method == Method.ALLOCATE else []


class RuleTests(SynchronousTestCase):
    """Intervals of 5 s; a silent server is silent after 2 s."""

    def setUp(self) -> None:
        self.net = Net()
        self.net.servers = {A: alive, B: alive}
        self.log = Log()
        self.changes: list[tuple[str, ...]] = []
        self.ids = count()

    def watch(self, *texts: str, **options: Any) -> ServerWatch:
        texts = texts or (URI_A, URI_B)
        watch = ServerWatch(
            uris(*texts),
            self.net,
            interval=5.0,
            random_bytes=lambda size: next(self.ids).to_bytes(size),
            log=self.log.logger,
            on_change=lambda: self.changes.append(watch.usable(texts)),
            **options,
        )
        watch.start()
        self.addCleanup(watch.stop)
        return watch

    def test_before_the_first_verdict_all_are_usable(self) -> None:
        self.net.servers = {}
        watch = self.watch()
        self.assertEqual(watch.usable([URI_A, URI_B]), (URI_A, URI_B))
        self.assertEqual(
            watch.health(),
            [ServerHealth(URI_A, True, 0.0, None), ServerHealth(URI_B, True, 0.0, None)],
        )

    def test_who_answers_stays_and_is_asked_once_a_round(self) -> None:
        watch = self.watch()
        for _ in range(3):
            self.assertEqual(self.net.count(), 2)
            self.net.go_on(5)
        self.assertEqual(watch.usable([URI_A, URI_B]), (URI_A, URI_B))
        self.assertEqual([one.rtt for one in watch.health()], [0.25, 0.25])
        self.assertEqual(self.log.lines(), [])
        self.assertEqual(self.changes, [])

    def test_requests_are_binding_requests_that_differ(self) -> None:
        self.watch()
        self.net.go_on(5)
        requests = [message for message, _ in self.net.sent]
        self.assertEqual({one.kind for one in requests}, {Kind.REQUEST})
        self.assertEqual({one.method for one in requests}, {Method.BINDING})
        self.assertEqual(len({one.transaction for one in requests}), 4)

    def test_two_silent_rounds_leave_a_server_out_until_it_answers(self) -> None:
        watch = self.watch()
        self.net.go_on(1)
        self.net.servers[B] = dead
        self.net.go_on(6)
        self.assertEqual(watch.usable([URI_A, URI_B]), (URI_A, URI_B))
        self.net.go_on(4.75)
        self.assertEqual(self.changes, [])
        self.net.go_on(0.25)
        self.assertEqual(self.changes, [(URI_A,)])
        self.assertEqual(watch.usable([URI_B, "turn:other", URI_A]), ("turn:other", URI_A))
        self.assertEqual(watch.health()[1], ServerHealth(URI_B, False, 12.0, None))
        self.assertEqual(
            self.log.lines(), ["warn: turn:192.0.2.2 does not answer: no answer within 2 s"]
        )
        self.net.go_on(8)
        self.net.servers[B] = alive
        self.net.go_on(2)
        self.assertEqual(self.changes, [(URI_A,), (URI_A, URI_B)])
        self.assertEqual(watch.health()[1], ServerHealth(URI_B, True, 21.25, 1.25))
        self.assertEqual(self.log.lines(), ["info: turn:192.0.2.2 answers again"])

    def test_a_lost_request_is_repeated_with_the_same_id(self) -> None:
        watch = self.watch(URI_A)
        self.net.servers[A] = dead
        self.net.go_on(5)
        self.net.count()
        self.net.servers[A] = alive
        self.net.go_on(1.25)
        [(message, address)] = self.net.sent
        self.assertEqual((message.transaction[-1], address), (1, A))
        self.assertEqual(watch.health()[0].rtt, 1.25)

    def test_what_cannot_be_sent_is_sent_again(self) -> None:
        self.net.unreachable = {A}
        watch = self.watch(URI_A, failures=1)
        self.net.go_on(0.5)
        self.net.unreachable = set()
        self.net.go_on(2)
        self.assertEqual(watch.health()[0].rtt, 1.25)

    def test_silent_rounds_count_in_a_row_only(self) -> None:
        self.watch()
        self.net.go_on(3)
        for server in (dead, dead, alive, dead, alive, dead):
            self.net.servers[A] = server
            self.net.go_on(5)
        self.assertEqual(self.changes, [(URI_B,), (URI_A, URI_B)])

    def test_if_all_are_down_all_are_handed_out(self) -> None:
        self.net.servers = {}
        watch = self.watch(URI_A, URI_B, "stun:192.0.2.3", failures=1)
        self.net.servers["192.0.2.3", 3478] = alive
        self.net.go_on(2)
        self.assertEqual([one.up for one in watch.health()], [False, False, True])
        self.assertEqual(watch.usable([URI_A, URI_B]), (URI_A, URI_B))
        self.assertEqual(watch.usable([URI_A, "stun:192.0.2.3"]), ("stun:192.0.2.3",))
        self.assertEqual(watch.usable([]), ())

    def test_a_server_with_several_uris_is_asked_once(self) -> None:
        self.net.names.known["turn.example"] = ["192.0.2.1"]
        texts = ("turn:turn.example", "turn:Turn.Example:3478?transport=udp", "stun:turn.example")
        watch = self.watch(*texts, failures=1)
        self.assertEqual(self.net.count(), 1)
        self.net.servers[A] = dead
        self.net.go_on(7)
        self.assertEqual([one.up for one in watch.health()], [False] * 3)
        self.assertEqual([one.uri for one in watch.health()], list(texts))
        self.assertEqual(
            self.log.lines(), [f"warn: {' '.join(texts)} does not answer: no answer within 2 s"]
        )

    def test_any_reply_shows_that_a_server_is_alive(self) -> None:
        self.net.servers[A] = lambda request, address: [(answer(request, Kind.ERROR), address)]
        watch = self.watch(URI_A, failures=1)
        self.net.go_on(2)
        self.assertEqual([one.up for one in watch.health()], [True])

    def test_a_turn_server_that_ignores_binding_is_alive(self) -> None:
        """It answers to Allocate, and is asked for nothing more than a refusal."""
        texts = (URI_A, "turn:192.0.2.1:3478", "stun:192.0.2.1", URI_B)
        self.net.servers[A] = refuses_allocate
        watch = self.watch(*texts)
        self.net.go_on(30)
        self.assertEqual([one.up for one in watch.health()], [True, True, False, True])
        self.assertEqual([one.rtt for one in watch.health()], [0.25, 0.25, None, 0.25])
        self.assertEqual(
            self.log.lines(),
            ["warn: stun:192.0.2.1 does not answer: it ignores Binding requests"],
        )
        asked = [message for message, address in self.net.sent if address == A]
        self.assertEqual({one.method for one in asked}, {Method.BINDING, Method.ALLOCATE})
        self.assertEqual({one.attributes for one in asked}, {()})
        at_b = {message.method for message, address in self.net.sent if address == B}
        self.assertEqual(at_b, {Method.BINDING}, "who answers is not asked again")
        self.net.servers[A] = alive
        self.net.go_on(6)
        self.assertEqual(self.log.lines(), ["info: stun:192.0.2.1 answers again"])
        self.net.servers[A] = dead
        self.net.go_on(15)
        self.assertEqual(
            self.log.lines(),
            [f"warn: {' '.join(texts[:3])} does not answer: no answer within 2 s"],
        )

    def test_a_stun_server_must_answer_binding(self) -> None:
        self.net.servers[A] = refuses_allocate
        watch = self.watch("stun:192.0.2.1")
        self.net.go_on(15)
        self.assertEqual([one.up for one in watch.health()], [False])
        self.assertEqual({message.method for message, _ in self.net.sent}, {Method.BINDING})

    def test_what_is_no_answer_is_ignored(self) -> None:
        def other_id(request: Message) -> Message:
            return Message(Kind.SUCCESS, Method.BINDING, request.transaction[::-1])

        replies: dict[str, Reply] = {
            "garbage": lambda _: (b"\0\1garbage", A),
            "nothing": lambda _: (b"", A),
            "another transaction": lambda request: (encode(other_id(request)), A),
            "another port": lambda request: (answer(request), (A[0], 3479)),
            "another host": lambda request: (answer(request), B),
            "a request": lambda request: (encode(request), A),
            "an indication": lambda request: (answer(request, Kind.INDICATION), A),
            "another method": lambda request: (
                encode(Message(Kind.SUCCESS, Method.ALLOCATE, request.transaction)),
                A,
            ),
            "cut off": lambda request: (answer(request)[:-1], A),
        }
        for name, reply in replies.items():
            self.net = Net()
            self.net.servers[A] = lambda request, _, reply=reply: [reply(request)]  # type: ignore[misc]  # a default argument
            watch = self.watch(URI_A, failures=1)
            self.net.go_on(2)
            self.assertEqual([one.up for one in watch.health()], [False], name)
        self.assertEqual(len(self.log.lines()), len(replies))

    def test_an_answer_behind_garbage_counts(self) -> None:
        self.net.servers[A] = lambda request, address: [
            (b"garbage", address),
            (answer(request), B),
            (answer(request), address),
            (answer(request), address),
        ]
        watch = self.watch(URI_A, failures=1)
        self.net.go_on(2)
        self.assertEqual([one.up for one in watch.health()], [True])

    def test_an_answer_that_comes_too_late_is_none(self) -> None:
        self.net.latency = 2.5
        watch = self.watch(URI_A, failures=1)
        self.net.go_on(3)
        self.assertEqual([one.up for one in watch.health()], [False])

    def test_one_address_of_a_name_is_enough(self) -> None:
        self.net.names.known["turn.example"] = ["2001:db8::1", A[0], B[0], A[0]]
        self.net.servers = {B: alive}
        self.net.unreachable = {A}
        self.net.families = [IPV4]
        watch = self.watch("turn:turn.example", failures=1)
        self.assertEqual([address for _, address in self.net.sent], [A, B])
        self.net.go_on(7)
        self.assertEqual([one.up for one in watch.health()], [True])
        self.assertEqual(len(self.net.sent), 4)

    def test_addresses_are_asked_over_sockets_of_their_family(self) -> None:
        address = ("2001:db8::1", 3479)
        self.net.servers[address] = alive
        watch = self.watch("turn:[2001:DB8:0::1]:3479", URI_A, failures=1)
        self.net.go_on(7)
        self.assertEqual([address for _, address in self.net.sent], [address, A] * 2)
        self.assertEqual([one.up for one in watch.health()], [True, True])
        self.assertEqual(len(self.net.sockets), 2)

    def test_a_name_is_looked_up_each_round(self) -> None:
        names = self.net.names
        names.known["turn.example"] = [A[0]]
        self.net.servers = {B: alive}
        watch = self.watch("turn:turn.example", failures=1)
        self.net.go_on(2)
        self.assertEqual([one.up for one in watch.health()], [False])
        names.known["turn.example"] = [B[0]]
        self.net.go_on(4)
        self.assertEqual([one.up for one in watch.health()], [True])
        names.known.clear()
        self.net.go_on(4)
        self.assertEqual([one.up for one in watch.health()], [False])
        self.assertEqual(
            self.log.lines()[2],
            "warn: turn:turn.example does not answer: its name has no address",
        )
        self.assertEqual(names.asked, ["turn.example"] * 3)

    def test_a_lookup_that_hangs_is_not_joined_by_others(self) -> None:
        names = self.net.names
        names.known["turn.example"] = [A[0]]
        names.held = []
        watch = self.watch("turn:turn.example", "turn:turn.example?transport=tcp", URI_A)
        for _ in range(2):
            self.net.go_on(5)
        self.assertEqual([one.up for one in watch.health()], [False, False, True])
        self.assertEqual(names.asked, ["turn.example"])
        cause = "looking up its name takes too long"
        self.assertEqual(
            self.log.lines(),
            [
                f"warn: turn:turn.example does not answer: {cause}",
                f"warn: turn:turn.example?transport=tcp does not answer: {cause}",
            ],
        )
        held, names.held = names.held, None
        held[0]()
        self.net.go_on(1)
        self.assertEqual([one.up for one in watch.health()], [True, False, True])
        self.net.go_on(4)
        self.assertEqual(len(names.asked), 3)

    def test_rounds_do_not_overlap(self) -> None:
        self.net.servers = {}
        self.watch("stun:192.0.2.1", timeout=4.0)
        self.net.go_on(7.75)
        self.assertEqual(self.net.count(), 2)
        self.net.go_on(2)
        self.assertEqual(self.net.count(), 0)
        self.net.go_on(0.25)
        self.assertEqual(self.net.count(), 1)

    def test_stopping_closes_the_sockets_and_changes_no_verdict(self) -> None:
        self.net.servers = {}
        names = self.net.names
        names.held = []
        watch = self.watch(URI_A, "turn:turn.example", "turn:[::1]", failures=1)
        self.net.go_on(1)
        stopped = watch.stop()
        self.assertNoResult(stopped)
        self.net.advance(0)
        self.successResultOf(stopped)
        self.assertEqual([socket.open for socket in self.net.sockets], [False, False])
        self.assertEqual(self.net.getDelayedCalls(), [])
        self.assertEqual([one.up for one in watch.health()], [True] * 3)
        self.assertEqual(self.log.lines(), [])
        self.successResultOf(watch.stop())

    def test_it_can_be_started_again(self) -> None:
        watch = self.watch(URI_A, failures=1)
        stopped = watch.stop()
        self.net.go_on(1)
        self.successResultOf(stopped)
        self.net.servers = {}
        watch.start()
        self.assertEqual(watch.health()[0].since, 1.0)
        self.net.go_on(2)
        self.assertEqual([one.up for one in watch.health()], [False])

    def test_a_socket_that_broke_is_replaced(self) -> None:
        watch = self.watch(URI_A, failures=1)
        self.net.go_on(1)
        self.net.sockets[0].close()
        self.net.go_on(5)
        self.assertEqual([one.up for one in watch.health()], [True])
        self.assertEqual([socket.open for socket in self.net.sockets], [False, True])

    def test_an_error_is_logged_and_the_watch_goes_on(self) -> None:
        def on_change() -> None:
            raise RuntimeError("of the one who is told")

        self.net.servers = {}
        watch = ServerWatch(
            uris(URI_A),
            self.net,
            interval=5,
            failures=1,
            random_bytes=os.urandom,
            log=self.log.logger,
            on_change=on_change,
        )
        watch.start()
        self.net.go_on(5)
        self.net.servers = {A: alive}
        self.net.go_on(2)
        self.assertEqual([one.up for one in watch.health()], [True])
        logged = [
            event["log_failure"].value.args for event in self.log.events if "log_failure" in event
        ]
        self.assertEqual(logged, [("of the one who is told",)] * 2)

    def test_dtls_is_not_watched(self) -> None:
        text = "turns:192.0.2.1?transport=udp"
        watch = self.watch(text, failures=1)
        self.net.go_on(5)
        self.assertEqual(self.net.sent, [])
        self.assertEqual(watch.health(), [])
        self.assertEqual(watch.usable([text]), (text,))
