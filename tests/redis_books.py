"""What Redis counts along must equal a recount of its own rows."""

from collections import Counter
from typing import Any

from msgspec import msgpack

from odingw.grid.rooms import base_of
from odingw.state.redis.rows import ServerRow, read_room_key, read_server, room_key
from tests.redis_server import RedisServer


class Books:
    """The keys of one pool, as they are now.

    Args:
        server: where they are.
        tag: how they begin.
    """

    def __init__(self, server: RedisServer, tag: str) -> None:
        self._server = server
        self._tag = tag
        epoch = server.command("HGET", f"{tag}:main", "epoch")
        self.epoch = epoch.decode() if epoch else ""

    def key(self, name: str) -> str:
        """Return a key."""
        return f"{self._tag}:{self.epoch}:{name}"

    def hash(self, name: str) -> dict[str, bytes]:
        """Return a hash, but for its marker."""
        found = self._server.command("HGETALL", self.key(name))
        fields = zip(found[::2], found[1::2], strict=True)
        return {field.decode(): value for field, value in fields if field}

    def rows(self, name: str) -> dict[str, Any]:
        """Return a hash of rows."""
        return {field: msgpack.decode(value) for field, value in self.hash(name).items()}

    def members(self, name: str) -> list[str]:
        """Return the members of a sorted set, in order, but for its marker."""
        found = self._server.command("ZRANGE", self.key(name), "0", "-1")
        return [member.decode() for member in found if member]

    def servers(self) -> dict[str, ServerRow]:
        """Return all servers' rows."""
        return {name: read_server(row) for name, row in self.hash("servers").items()}

    def bases(self) -> dict[str, tuple[bool, int, str]]:
        """Return whether each base is reported, how many rooms it has, and its server."""
        found = {}
        for base, value in self.hash("bases").items():
            reported, rooms, server = value.decode().split(" ", 2)
            found[base] = (reported == "1", int(rooms), server)
        return found

    def tallies(self) -> Counter[str]:
        """Return what is counted of servers."""
        return Counter(_numbers(self.hash("tallies")))

    def left(self) -> set[str]:
        """Return the names of keys that hold something, but for those that outlive rooms."""
        start = f"{self._tag}:{self.epoch}:"
        found = {key.decode() for key in self._server.command("KEYS", "*")}
        names = {key.removeprefix(start) for key in found if key.startswith(start)}
        kept = {
            "counts",
            "servers",
            "targets",
            "heard",
            "open",
            "facts",
            "facts_at",
            "ends",
            "bans_of",
        }
        kept |= {"growth", "given_others", "done", "awaited"}
        left = set()
        for name in names - kept:
            if name == "tallies" and all(field[0] == "g" for field in self.hash(name)):
                # Growth is foreseen for some time after its room.
                continue
            kind = self._server.command("TYPE", self.key(name))
            if kind == "hash" and not self.hash(name):
                continue
            if kind == "zset" and not self.members(name):
                continue
            left.add(name)
        return left

    def check(self) -> None:
        """Recount everything."""
        servers, bases, places = self.servers(), self.bases(), self.rows("places")
        rooms: dict[str, dict[str, Any]] = {name: self.rows(f"rooms:{name}") for name in servers}
        of_base: Counter[str] = Counter()
        usage: dict[str, Counter[str]] = {kind: Counter() for kind in "prn"}
        reserved = Counter(place[0] for place in places.values())
        names = set()
        tallies = self.tallies()
        for address, row in servers.items():
            uses = {kind: Counter[str]() for kind in "pn"}
            for key, (customer, peers, _, count, *_) in rooms[address].items():
                namespace, name = read_room_key(key)
                base = room_key(namespace, base_of(name))
                of_base[base] += 1
                assert bases[base][2] == address, f"{key} is on {address}, its base is not"
                assert reserved[key] == count, f"{key} has {reserved[key]} places, not {count}"
                assert peers >= 0 or count, f"{key} is kept by nothing"
                if base != key:
                    names.add(f"{base}\0{key}")
                if peers >= 0:
                    assert bases[base][0], f"{base} is not known to be reported"
                    uses["p"][customer] += peers
                    uses["n"][customer] += 1
                if peers < 0 or row.state == 0:
                    usage["p"][customer] += max(0, peers)
                    usage["n"][customer] += 1
            count_of = {f"{kind}{name}": n for kind in uses for name, n in uses[kind].items() if n}
            assert count_of == _numbers(self.hash(f"uses:{address}")), address
            reports = [room for room in rooms[address].values() if room[1] >= 0]
            counted = (
                len(reports),
                sum(r[1] for r in reports),
                sum(r[3] for r in rooms[address].values()),
            )
            assert counted == tuple(tallies[kind + address] for kind in "rpn"), (address, counted)
        assert {base: count for base, (_, count, _) in bases.items()} == dict(of_base)
        assert set(self.members("names")) == names
        for place in places.values():
            usage["r"][place[2]] += 1
        counted_usage = {f"{k}{name}": n for k in usage for name, n in usage[k].items() if n}
        demo = {field: n for field, n in counted_usage.items() if field[1:].startswith("demo_")}
        assert demo == _numbers(self.hash("demo")), (demo, self.hash("demo"))
        others = {field: n for field, n in counted_usage.items() if field not in demo}
        assert others == _numbers(self.hash("usage")), (others, self.hash("usage"))
        counts = msgpack.decode(self.hash("counts")["row"])
        for kind, counted in zip("prn", counts[9:12], strict=True):
            assert counted == sum(n for field, n in demo.items() if field[0] == kind)
        self._check_growth(servers)
        self._check_tasks(servers, bases)
        self._check_places(places)

    def _check_growth(self, servers: dict[str, ServerRow]) -> None:
        foreseen = Counter[str]()
        grown = msgpack.decode(self.hash("counts")["row"])[2]
        running = self.rows("growth")
        for address in servers:
            for row in self.rows(f"rooms:{address}").values():
                if row[4] > grown:
                    assert running[str(row[4])][1], row
                    foreseen[address] += row[5]
        for _, room, address, born, left, _ in running.values():
            if not room and address in servers and servers[address].born == born:
                foreseen[address] += left
        for address in servers:
            assert foreseen[address] == self.tallies()[f"g{address}"], address

    def _check_places(self, places: dict[str, Any]) -> None:
        for number, (room, user, *_) in places.items():
            score = self._server.command("ZSCORE", self.key(f"places:{room}"), user)
            assert int(score) == int(number), (room, user)

    def _check_tasks(
        self, servers: dict[str, ServerRow], bases: dict[str, tuple[bool, int, str]]
    ) -> None:
        tasks = self.rows("tasks")
        homes: dict[str, set[str]] = {}
        owes: Counter[str] = Counter()
        for name, (server, base, customer, size, _, flies, _) in tasks.items():
            owes[f"n{server}\0{customer}"] += 1
            owes[f"b{server}\0{customer}"] += size
            if not flies:
                homes.setdefault(base, set()).add(server)
                if base in bases and servers[bases[base][2]].state != 2:
                    assert server == bases[base][2], f"{name} waits at {server}"
        for base, found in homes.items():
            assert len(found) == 1, f"tasks of {base} wait at {found}"
        assert dict(owes) == _numbers(self.hash("owes"))
        assert self.members("queue") == sorted(f"{row[0]}\0{name}" for name, row in tasks.items())
        assert self.members("about") == sorted(f"{row[1]}\0{name}" for name, row in tasks.items())
        of_server = Counter(row[0] for row in tasks.values())
        for address in servers:
            assert of_server[address] == self.tallies()[f"t{address}"], address
        flying = {name for name, row in tasks.items() if row[5]}
        assert flying == {name for flight in self.rows("flights").values() for name in flight[2]}


def _numbers(counts: dict[str, bytes]) -> dict[str, int]:
    return {field: int(float(value)) for field, value in counts.items()}
