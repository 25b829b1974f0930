"""Several real redis-servers that belong together: under sentinels, and as a cluster."""

import time
from collections.abc import Callable
from typing import Any, Final, Self

from tests.ports import free_port
from tests.redis_server import HOST, Address, RedisServer

MASTER: Final = "grid"
"""The name by which the sentinels know the master."""

PATIENCE: Final = 30.0

_SILENCE: Final = 300
"""Milliseconds after which a sentinel counts a master as down."""


class Sentinels:
    """A master, a replica, and three sentinels of which two must agree.

    Args:
        password: of the sentinels, if they want one; the others want none.

    Attributes:
        redis: the master and the replica that there are at first.
        sentinels: the sentinels.
    """

    def __init__(self, password: str | None = None) -> None:
        master = RedisServer(persistent=False, options=("repl-diskless-sync-delay 0",))
        self.redis = [master, RedisServer(persistent=False, options=(_replica_of(master),))]
        ids = [str(number) * 40 for number in range(3)]
        self.sentinels = [
            RedisServer(persistent=False, sentinel=True, password=password) for _ in ids
        ]
        for own, sentinel in zip(ids, self.sentinels, strict=True):
            sentinel.options = (
                f"sentinel myid {own}",
                f"sentinel monitor {MASTER} {HOST} {master.port} 2",
                f"sentinel down-after-milliseconds {MASTER} {_SILENCE}",
                f"sentinel failover-timeout {MASTER} 2000",
                f"sentinel known-replica {MASTER} {HOST} {self.redis[1].port}",
                # They would take seconds to find each other.
                *(
                    f"sentinel known-sentinel {MASTER} {HOST} {other.port} {name}"
                    for name, other in zip(ids, self.sentinels, strict=True)
                    if other is not sentinel
                ),
                *([] if password is None else [f'sentinel sentinel-pass "{password}"']),
            )

    def start(self) -> Self:
        """Start all, and wait until the replica follows the master."""
        try:
            for server in (*self.redis, *self.sentinels):
                server.start()
            wait_until(lambda: self.redis[1].command("ROLE")[3] == b"connected")
            wait_until(lambda: all(map(self._sees_replica, self.sentinels)))
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Kill all."""
        for server in (*self.sentinels, *self.redis):
            server.close()

    def url(self, **parameters: str) -> str:
        """Return the URL of the state."""
        hosts = ",".join(f"{HOST}:{sentinel.port}" for sentinel in self.sentinels)
        more = "".join(f"&{name}={value}" for name, value in parameters.items())
        return f"redis+sentinel://{hosts}/0?master={MASTER}{more}"

    def master(self, of: int = 0) -> Address:
        """Return where a sentinel says that the master is."""
        host, port = self.sentinels[of].command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
        return host.decode(), int(port)

    def _sees_replica(self, sentinel: RedisServer) -> bool:
        (found,) = sentinel.command("SENTINEL", "REPLICAS", MASTER)
        fields = dict(zip(found[::2], found[1::2], strict=True))
        return bool(fields[b"master-link-status"] == b"ok")


class Cluster:
    """Three masters that share the slots evenly.

    Attributes:
        nodes: the masters, in the order of their slots.
    """

    def __init__(self) -> None:
        self.nodes = [
            RedisServer(
                persistent=False,
                options=(
                    "cluster-enabled yes",
                    f"cluster-port {free_port()}",
                    "cluster-node-timeout 2000",
                ),
            )
            for _ in range(3)
        ]

    def start(self) -> Self:
        """Start all, and wait until they agree."""
        try:
            for number, node in enumerate(self.nodes):
                node.start()
                first, end = (16384 * one // 3 for one in (number, number + 1))
                node.command("CLUSTER", "ADDSLOTSRANGE", str(first), str(end - 1))
                node.command("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
            for node in self.nodes[1:]:
                bus = node.options[1].split()[1]
                self.nodes[0].command("CLUSTER", "MEET", HOST, str(node.port), bus)
            wait_until(lambda: all(map(_is_whole, self.nodes)))
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Kill all."""
        for node in self.nodes:
            node.close()

    def url(self, *numbers: int) -> str:
        """Return the URL of the state, with these nodes or all."""
        nodes = [self.nodes[number] for number in numbers] or self.nodes
        return "redis+cluster://" + ",".join(f"{HOST}:{node.port}" for node in nodes)

    def command_all(self, *command: str) -> None:
        """Send a command to each node."""
        for node in self.nodes:
            node.command(*command)

    def owner(self, key: str) -> int:
        """Return which node serves a key."""
        slot = self.nodes[0].command("CLUSTER", "KEYSLOT", key)
        for first, last, (_, port, *_), *_ in self.nodes[0].command("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return [node.port for node in self.nodes].index(port)
        raise AssertionError("nobody has the slot")

    def move(self, key: str, target: int) -> None:
        """Give the slot of a key, with its keys, to another node."""
        source = self.owner(key)
        old, new = self.nodes[source], self.nodes[target]
        slot = str(old.command("CLUSTER", "KEYSLOT", key))
        names = [node.command("CLUSTER", "MYID").decode() for node in (old, new)]
        new.command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[0])
        old.command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[1])
        keys = old.command("CLUSTER", "GETKEYSINSLOT", slot, "1000")
        if keys:
            place = (HOST, str(new.port), "", "0", "5000")
            old.command("MIGRATE", *place, "KEYS", *keys)
        for node in (new, old):
            node.command("CLUSTER", "SETSLOT", slot, "NODE", names[1])


def wait_until(condition: Callable[[], Any]) -> None:
    """Wait for what other processes do."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("in vain")
        time.sleep(0.02)


def _replica_of(master: RedisServer) -> str:
    return f"replicaof {HOST} {master.port}"


def _is_whole(node: RedisServer) -> bool:
    info = node.command("CLUSTER", "INFO")
    return b"cluster_state:ok" in info and b"cluster_known_nodes:3" in info
