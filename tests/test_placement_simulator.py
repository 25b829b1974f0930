"""The simulator of placement: it is fair and repeatable, and the product's rule earns its place."""

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.placement.comparison import POLICIES, Run, Task, ratio_of_means, run_task, summarise
from benchmarks.placement.policies import Existing, Ideal, Presence, Server
from benchmarks.placement.scenarios import EVENT, FLEETS, SCENARIOS, Fleet, Scenario
from benchmarks.placement.simulation import Outcome
from benchmarks.placement.world import generator, make_world

FLEET = Fleet(8, 2_000)
SMALL = {scenario.name: scenario for scenario in SCENARIOS}


def run(name: str, seed: int = 0, gateways: int = 1, *policies: str) -> Run:
    return run_task(Task(SMALL[name], FLEET, seed, gateways, policies or POLICIES))


def servers(*clients: int) -> list[Server]:
    made = []
    for index, count in enumerate(clients):
        server = Server(index, 100)
        server.clients = count
        server.there = True
        made.append(server)
    return made


class WorldTests(SynchronousTestCase):
    def test_a_seed_always_gives_the_same_world(self) -> None:
        first, second = (make_world(SMALL["servers die"], FLEET, 3) for _ in range(2))
        self.assertEqual(first, second)
        self.assertNotEqual(first.joins, make_world(SMALL["servers die"], FLEET, 4).joins)

    def test_the_level_is_kept(self) -> None:
        for name in ("steady", "nearly full"):
            world = make_world(SMALL[name], FLEETS[0], 0)
            stays = [
                (time + world.travel[client], world.leaves[client]) for time, client in world.joins
            ]
            for now in (EVENT, EVENT + 300):
                there = sum(came <= now < leaves for came, leaves in stays)
                self.assertApproximates(there / FLEETS[0].capacity, SMALL[name].level, 0.05)

    def test_the_crowd_comes_at_the_event_to_all_of_its_rooms(self) -> None:
        crowd = Scenario(name="crowd", level=0.8, crowd=900, crowd_rooms=200, crowd_time=5)
        world = make_world(crowd, FLEET, 0)
        came = [
            world.room_of[client]
            for time, client in world.joins
            if EVENT <= time <= EVENT + 5 and world.room_of[client] >= world.rooms - 200
        ]
        self.assertEqual((len(came), len(set(came))), (900, 200))


class PolicyTests(SynchronousTestCase):
    def test_the_ideal_takes_the_least_loaded_server_with_the_clients_under_way(self) -> None:
        fleet = servers(10, 5, 8)
        fleet[1].under_way = 4
        ideal = Ideal(fleet, generator("test"))
        ideal.tick(0)
        self.assertEqual(ideal.connect(0, 0, 0.0), 2)

    def test_a_room_stays_where_it_is_until_it_is_empty(self) -> None:
        fleet = servers(10, 5)
        ideal = Ideal(fleet, generator("test"))
        ideal.tick(0)
        self.assertEqual(ideal.connect(0, 7, 0.0), 1)
        fleet[1].clients = 20
        fleet[1].rooms[7] = Presence(7)
        self.assertEqual(ideal.connect(1, 7, 60.0), 1)
        del fleet[1].rooms[7]
        self.assertEqual(ideal.connect(2, 7, 120.0), 0)

    def test_the_existing_rule_takes_the_last_server_if_all_are_full(self) -> None:
        fleet = servers(0, 0, 0)
        existing = Existing(fleet, generator("test"))
        for server in fleet:
            existing.report(server, 1.0, 0.0)
        self.assertEqual({existing.connect(room, room, 0.0) for room in range(20)}, {2})

    def test_silent_servers_get_nothing(self) -> None:
        fleet = servers(0, 0)
        existing = Existing(fleet, generator("test"))
        for server in fleet:
            existing.report(server, 0.0, 0.0)
        existing.report(fleet[1], 0.0, 5.0)
        existing.tick(8.0)
        self.assertEqual({existing.connect(room, room, 8.0) for room in range(20)}, {1})


class SimulationTests(SynchronousTestCase):
    def test_a_seed_always_gives_the_same_outcome(self) -> None:
        self.assertEqual(run("noisy", 5), run("noisy", 5))

    def test_all_policies_meet_the_same_joins(self) -> None:
        """Where nothing dies, every policy lets every client in, whatever the server."""
        outcomes = run("noisy", 1).values()
        self.assertEqual({outcome.refused for outcome in outcomes}, {0})
        self.assertEqual(len({outcome.joins for outcome in outcomes}), 1)
        self.assertEqual(len({outcome.hottest for outcome in outcomes}), len(POLICIES))

    def test_the_ideal_is_better_than_choosing_blindly(self) -> None:
        for name in ("steady", "drain", "servers die"):
            outcomes = run(name, 0, 1, "existing", "ideal")
            self.assertLess(outcomes["ideal"].hottest, outcomes["existing"].hottest)
            self.assertLess(outcomes["ideal"].excess, outcomes["existing"].excess)

    def test_the_rule_beats_the_existing_one(self) -> None:
        runs = [run("steady", seed) for seed in range(2)]
        summary = summarise(SMALL["steady"], FLEET, runs)
        self.assertLess(summary.of_existing.value, 1)
        self.assertLess(summary.excess.value, 0.8)

    def test_rooms_of_a_dead_server_find_another_with_several_gateways(self) -> None:
        alone = run("servers die", 0, 1, "product")["product"]
        shared = run("servers die", 0, 3, "product")["product"]
        self.assertGreater(shared.joins, 0.95 * alone.joins)
        self.assertLess(shared.hottest, 1.3 * alone.hottest)


class SummaryTests(SynchronousTestCase):
    def outcome(self, hottest: float, excess: float, overloaded: int = 0) -> Outcome:
        return Outcome(hottest, excess, hottest, 100, overloaded, 0)

    def test_a_ratio_is_of_the_means(self) -> None:
        self.assertAlmostEqual(ratio_of_means([1, 3], [1, 1]).value, 2)
        self.assertAlmostEqual(ratio_of_means([2, 4], [1, 2]).error, 0)
        self.assertAlmostEqual(ratio_of_means([1, 3], [1, 1]).error, 1)

    def test_what_is_missed_is_named(self) -> None:
        good = {
            "product": self.outcome(1.0, 0.1, 1),
            "existing": self.outcome(1.5, 0.6, 10),
            "two choices": self.outcome(1.2, 0.3),
            "ideal": self.outcome(1.0, 0.1),
        }
        bad = {**good, "product": self.outcome(1.4, 0.5, 8)}
        full, unknown = SMALL["nearly full"], SMALL["idle, cost unknown"]
        self.assertEqual(summarise(full, FLEET, [good]).missed(), [])
        self.assertEqual(len(summarise(full, FLEET, [bad]).missed()), 3)
        self.assertEqual(summarise(unknown, FLEET, [bad]).missed(), [])
        worse = {**good, "product": self.outcome(1.9, 0.5)}
        self.assertEqual(len(summarise(unknown, FLEET, [worse]).missed()), 1)

    def test_several_gateways_are_given_three_points_more(self) -> None:
        outcomes = {name: self.outcome(1.0, 0.1) for name in POLICIES}
        alone = summarise(SMALL["steady"], FLEET, [outcomes])
        shared = summarise(SMALL["steady"], FLEET, [outcomes], gateways=3)
        assert alone.most_hottest is not None
        assert shared.most_hottest is not None
        self.assertAlmostEqual(shared.most_hottest - alone.most_hottest, 0.03)
