"""What Redis refuses has a kind, and operators are told of it once."""

from typing import Any, cast

from twisted.logger import ILogObserver, LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from odingw.errors import ConfigError
from odingw.state.redis.errors import KINDS, RedisAwayError, RedisRefusedError, refusal
from odingw.state.redis.words import Words, check_policy
from tests.link_case import LinkCase
from tests.redis_server import HOST

FULL = ("maxmemory 100kb", "maxmemory-policy noeviction")
SCRIPT = "return redis.call('SET', KEYS[1], '1')"


class RefusalTests(LinkCase):
    """Each is refused to a command, and to a script that runs it."""

    async def kinds(self, kind: str, *options: str) -> None:
        """Check the kind of the reason why a Redis with these options takes no writes."""
        link = await self.link(self.connector(self.server(options=options)))
        await self.refused(kind, link.execute("SET", "key", "1"))
        await self.refused(kind, link.execute("EVAL", SCRIPT, "1", "key"))
        self.assertFalse(link.lost.called)

    async def test_a_replica(self) -> None:
        await self.kinds("readonly", f"replicaof {HOST} {self.server().port}")

    async def test_a_replica_without_its_master(self) -> None:
        server = self.server(options=("replica-serve-stale-data no",))
        server.command("REPLICAOF", HOST, "1")
        self.assertIn("MASTERDOWN", await self.refusal(self.connector(server), "readonly"))

    async def test_no_memory(self) -> None:
        await self.kinds("oom", *FULL)

    async def test_too_few_replicas(self) -> None:
        await self.kinds("noreplicas", "min-replicas-to-write 1")

    async def test_a_user_that_may_not(self) -> None:
        server = self.server()
        server.command("ACL", "SETUSER", "default", "-set")
        link = await self.link(self.connector(server))
        await self.refused("noperm", link.execute("SET", "key", "1"))
        await self.refused("noperm", link.execute("EVAL", SCRIPT, "1", "key"))

    async def test_data_that_are_loaded(self) -> None:
        """Nobody is let in before they are."""
        server = self.server()
        with server.client() as client:
            for number in range(200):
                client.call("SET", str(number), "x" * 100)
            client.call("SAVE")
        server.kill()
        server.options = ("key-load-delay 20000", "loading-process-events-interval-bytes 1024")
        server.start(wait=False)
        connector = self.connector(server)
        seen: list[str] = []
        while not any("LOADING" in reason for reason in seen):
            try:
                await self.link(connector)
            except RedisAwayError:
                continue
            except RedisRefusedError as error:
                self.assertEqual("loading", error.kind)
                seen.append(str(error))
            else:
                self.fail("let in")

    async def test_scripts(self) -> None:
        link = await self.link(self.connector(self.server()))
        await self.refused("noscript", link.execute("EVALSHA", "0" * 40, "0"))
        await self.refused("script", link.execute("EVAL", "error('x')", "0"))
        await self.refused("script", link.execute("EVAL", "not Lua", "0"))
        await self.refused("other", link.execute("NONSENSE"))


class KindTests(SynchronousTestCase):
    def test_what_other_versions_say(self) -> None:
        call = f"ERR Error running script (call to f_{'a' * 40}): @user_script:1: "
        for text, kind in (
            (call + "@user_script: 1: -OOM command not allowed when used memory", "oom"),
            (call + "@user_script: 1: -READONLY You can't write against a replica", "readonly"),
            (call + "@user_script: 1: Unknown Redis command called", "script"),
            (call + "The user executing the script can't run this command", "noperm"),
            ("-DENIED Redis is running in protected mode", "auth"),
            ("TRYAGAIN Multiple keys request during rehashing of slot", "moved"),
            ("ERR max number of clients reached", "other"),
            ("MISCONF Redis is configured to save RDB snapshots", "other"),
            ("", "other"),
        ):
            self.assertEqual(kind, refusal(text).kind, text)


class Meter:
    """Keeps what is counted."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.difference = 0.0

    def store_failed(self, kind: str, count: int = 1) -> None:
        """Count."""
        self.counts[kind] = self.counts.get(kind, 0) + count

    def store_clock(self, difference: float) -> None:
        """Keep the last one."""
        self.difference = difference


class WordsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.meter = Meter()
        self.words = Words(self.meter)
        self.events: list[dict[str, Any]] = []
        observer = cast("ILogObserver", self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def lines(self, level: LogLevel) -> int:
        """Return how many lines of a level there were since the last call, and forget all."""
        found = sum(event["log_level"] is level for event in self.events)
        self.events.clear()
        return found

    def test_every_kind_is_said_and_counted(self) -> None:
        self.assertEqual(dict.fromkeys(("away", "policy", *KINDS), 0), self.meter.counts)
        for kind in KINDS:
            text = self.words.failed(RedisRefusedError("what Redis said", kind))
            self.assertTrue(text.endswith(": what Redis said"), text)
        self.words.failed(RedisAwayError("gone"))
        self.words.failed(ConfigError("evicts"))
        self.assertEqual({1}, set(self.meter.counts.values()))
        self.assertEqual(len(KINDS) + 2, self.lines(LogLevel.error))

    def test_a_reason_is_said_once_until_it_is_over(self) -> None:
        refused, away = RedisRefusedError("OOM", "oom"), RedisAwayError("gone")
        for error in (refused, refused, away, refused, away):
            self.words.failed(error)
        self.assertEqual(2, self.lines(LogLevel.error))
        self.assertEqual((3, 2), (self.meter.counts["oom"], self.meter.counts["away"]))
        self.words.well()
        self.words.well()
        self.assertEqual(1, self.lines(LogLevel.info))
        self.words.failed(refused)
        self.assertEqual(1, self.lines(LogLevel.error))

    def test_reasons_without_end(self) -> None:
        """A Redis that says something else each time does not fill the log."""
        for number in range(1000):
            self.words.failed(RedisRefusedError(f"ERR {number}", "other"))
        self.assertLess(self.lines(LogLevel.error), 100)
        self.assertEqual(1000, self.meter.counts["other"])

    def test_clock(self) -> None:
        """A difference of more than 2 s is a warning, once until it is over."""
        for redis in (1000.0, 998.1, 1001.9):
            self.words.clock(redis, 1000.0)
        self.assertEqual(0, self.lines(LogLevel.warn))
        for redis in (1002.5, 1002.6, 900.0):
            self.words.clock(redis, 1000.0)
        self.assertEqual(-100.0, self.meter.difference)
        self.assertEqual(1, self.lines(LogLevel.warn))
        for redis in (1000.0, 990.0):
            self.words.clock(redis, 1000.0)
        self.assertEqual(1, self.lines(LogLevel.warn))


class PolicyTests(LinkCase):
    async def test_what_a_redis_says(self) -> None:
        """Whatever throws away keys that never expire is refused, all else is not."""
        server = self.server()
        link = await self.link(self.connector(server))
        (_, known) = server.command("CONFIG", "GET", "maxmemory-policy")
        self.assertEqual(b"noeviction", known)
        for policy in ("noeviction", "volatile-lru", "volatile-ttl", "allkeys-lru", "allkeys-lfu"):
            server.command("CONFIG", "SET", "maxmemory-policy", policy)
            for section in ("memory", "everything"):
                info = await link.execute("INFO", section)
                if policy.startswith("allkeys"):
                    with self.assertRaisesRegex(ConfigError, f"{policy}.*noeviction"):
                        check_policy(info)
                else:
                    check_policy(info)

    def test_a_redis_that_does_not_say(self) -> None:
        check_policy(b"# Memory\r\nused_memory:1\r\n")
