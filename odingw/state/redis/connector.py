"""Finds the Redis that serves a key, and connects to it; every time anew."""

import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from odingw.config import Node, State, node_text
from odingw.errors import ConfigError
from odingw.state.redis.errors import RedisAwayError, RedisRefusedError
from odingw.state.redis.link import Link, check_txredisapi, open_link
from odingw.state.redis.tls import client_options

_MOST_MOVES: Final = 5
"""Nodes of a cluster that are asked one after the other where a slot is."""

_MOVED = re.compile(r"MOVED \d+ (?P<host>\S*):(?P<port>\d+)\Z")


class Connector:
    """Makes connections to the Redis that the configuration names.

    The configuration names one Redis, its sentinels, or nodes of a cluster. They are tried in turn,
    one that failed after all others. Names are looked up, and sentinels and nodes asked, for every
    connection, so there is nothing to forget when Redis moves.

    Args:
        state: the section ``[state]``.
        reactor: a Twisted reactor.

    Raises:
        ConfigError: a file for TLS, or this release of txredisapi, cannot be used.
    """

    def __init__(self, state: State, reactor: Any) -> None:
        check_txredisapi()
        self._reactor = reactor
        self._address = address = state.address
        self._nodes = list(address.nodes)
        self._tls: Callable[[str], Any] | None = None
        if address.tls:
            self._tls = partial(client_options, state)
            self._tls(address.nodes[0][0])
        ways: dict[str, Callable[[Node, str], Awaitable[Link]]] = {
            "": self._open,
            "sentinel": self._by_sentinel,
            "cluster": self._by_cluster,
        }
        self._find = ways[address.kind]

    async def __call__(self, key: str = "") -> Link:
        """Connect to the master that serves a key.

        Args:
            key: any key of a pool; only a cluster needs it.

        Raises:
            RedisAwayError: none can be reached.
            RedisRefusedError: it does not let this gateway in, or does not take commands yet.
        """
        failed: list[RedisAwayError | RedisRefusedError] = []
        for node in tuple(self._nodes):
            try:
                return await self._find(node, key)
            except (RedisAwayError, RedisRefusedError) as error:
                failed.append(error)
                self._nodes.remove(node)
                self._nodes.append(node)
        raise _together(failed)

    async def _open(self, node: Node, _: str = "") -> Link:
        address = self._address
        try:
            return await open_link(
                node,
                self._reactor,
                tls=self._tls,
                username=address.username,
                password=address.password,
                database=address.database,
            )
        except ConfigError as error:
            # The files were good when the gateway started.
            raise RedisAwayError(str(error)) from None

    async def _by_sentinel(self, sentinel: Node, _: str) -> Link:
        """Ask a sentinel for the master, and make sure that it is one: the sentinel may be late."""
        address = self._address
        asked = await open_link(
            sentinel,
            self._reactor,
            tls=self._tls,
            username=address.sentinel_username,
            password=address.sentinel_password,
        )
        try:
            found = await asked.execute("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.master)
        finally:
            asked.close()
        if not found:
            raise RedisAwayError(
                f"the sentinel {node_text(sentinel)} knows no master {address.master}"
            )
        host, port = found
        link = await self._open((host.decode(), int(port)))
        await _or_close(link, _check_master)
        return link

    async def _by_cluster(self, node: Node, key: str) -> Link:
        """Ask a node for the key, and follow where it points to.

        (Redis cluster specification, "MOVED redirection".)
        """
        for _ in range(_MOST_MOVES):
            link = await self._open(node)
            try:
                await _or_close(link, lambda link: link.execute("EXISTS", key))
            except RedisRefusedError as error:
                node = _next_node(error, node)
            else:
                return link
        raise RedisAwayError(f"the nodes of the cluster disagree who serves {key}")


async def _or_close(link: Link, work: Callable[[Link], Any]) -> None:
    try:
        await work(link)
    except BaseException:
        link.close()
        raise


async def _check_master(link: Link) -> None:
    role = await link.execute("ROLE")
    if role[0] != b"master":
        text = f"{node_text(link.node)} is said to be the master, but is a {role[0].decode()}"
        raise RedisRefusedError(text, "readonly")


def _next_node(error: RedisRefusedError, asked: Node) -> Node:
    """Return where MOVED points to; without a host, it is the one that was asked.

    Raises:
        RedisRefusedError: it is another refusal, or leads nowhere.
    """
    moved = _MOVED.match(str(error))
    if moved is None:
        raise error
    if moved["host"] == "?":
        raise RedisRefusedError(
            f"{node_text(asked)} points to a node that does not announce its name "
            "(cluster-announce-hostname)",
            "moved",
        )
    return moved["host"] or asked[0], int(moved["port"])


def _together(
    failed: list[RedisAwayError | RedisRefusedError],
) -> RedisAwayError | RedisRefusedError:
    """Return one error for those of all nodes; what was refused says more than what is away."""
    text = "; ".join(sorted(set(map(str, failed))))
    for error in reversed(failed):
        if isinstance(error, RedisRefusedError):
            return RedisRefusedError(text, error.kind)
    return RedisAwayError(text)
