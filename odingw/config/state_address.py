"""State URLs, taken apart.

Those of Redis begin with ``redis://``, or ``rediss://`` for TLS. The forms with several hosts are
those that most clients for Python know: ``redis+sentinel://HOST,HOST/NAME/DB``, with
``sentinel_username`` and ``sentinel_password`` as parameters, and ``redis+cluster://HOST,HOST``.
"""

import re
from pathlib import Path
from typing import Any, Final, Self, TypeAlias
from urllib.parse import unquote

from msgspec import Struct

from odingw.config.parts import check_characters, split_url

_REDIS = re.compile(
    r"(?P<scheme>rediss?(?:\+(?P<kind>sentinel|cluster))?)"
    r":(?://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?P<fragment>#.*)?)?",
    re.DOTALL,
)
_PORTS: Final = {"": 6379, "sentinel": 26379, "cluster": 6379}
_FORMS: Final = {
    "": "//[user:password@]host:port/db",
    "sentinel": "//[user:password@]host:port,host:port/db?master=NAME",
    "cluster": "//[user:password@]host:port,host:port",
}
_MASTER = re.compile(r"[A-Za-z0-9._-]+")
_DATABASE = re.compile(r"[0-9]{1,9}")
"""The bound keeps int() from refusing, or toiling over, thousands of digits."""

Node: TypeAlias = tuple[str, int]
"""Host name or IP address (an IPv6 one without brackets), and TCP port."""


class StateAddress(Struct, frozen=True, kw_only=True):
    """Where a state URL leads.

    Attributes:
        scheme: ``memory``, ``sqlite``, ``redis`` or ``rediss`` (Redis over TLS), the last two also
            with ``+sentinel`` or ``+cluster``.
        path: the file, for ``sqlite`` only.
        nodes: the Redis, sentinels of it, or nodes of the cluster.
        master: the name that the sentinels know Redis by.
        database: number of the Redis database.
        username: Redis user, or None.
        password: Redis password, or None.
        sentinel_username: user of the sentinels, or None.
        sentinel_password: password of the sentinels, or None.
    """

    scheme: str
    path: Path | None = None
    nodes: tuple[Node, ...] = ()
    master: str = ""
    database: int = 0
    username: str | None = None
    password: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = None

    def __repr__(self) -> str:
        """Name everything but users and passwords."""
        where = self.place.partition("://")[2] if self.nodes else str(self.path or "")
        return f"StateAddress({self.scheme!r}, {where!r})"

    @property
    def place(self) -> str:
        """Where the state is, without users and passwords."""
        if self.path is not None:
            return str(self.path)
        if self.nodes:
            master = f"?master={self.master}" if self.master else ""
            hosts = ",".join(map(node_text, self.nodes))
            return f"{self.scheme}://{hosts}/{self.database}{master}"
        return "memory, and no restart keeps it"

    @property
    def shared(self) -> bool:
        """Whether several gateways use it, one grid."""
        return bool(self.nodes)

    @property
    def tls(self) -> bool:
        """Whether connections to it use TLS."""
        return self.scheme.startswith("rediss")

    @property
    def kind(self) -> str:
        """``sentinel``, ``cluster`` or nothing: what the nodes are."""
        return self.scheme.partition("+")[2]

    @classmethod
    def parse(cls, url: str, folder: Path | None = None) -> Self:
        """Read ``memory:``, ``sqlite:PATH``, or one of the forms of Redis.

        Args:
            url: the URL; users and passwords may be percent-encoded.
            folder: what a relative ``sqlite:`` path is relative to; None leaves it relative.

        Raises:
            ValueError: it is none of these.
        """
        scheme, colon, rest = url.partition(":")
        if colon and scheme == "memory" and not rest:
            return cls(scheme=scheme)
        if colon and scheme == "sqlite":
            if not rest or "\0" in rest:
                raise ValueError('no file is named; write "sqlite:" and the path of a file')
            return cls(scheme=scheme, path=Path(rest) if folder is None else folder / rest)
        parts = _REDIS.fullmatch(url)
        if parts is None:
            raise ValueError(
                'unknown kind of state URL; write "memory:", "sqlite:PATH", '
                '"redis://host:port/db", "redis+sentinel://host,host/db?master=NAME" or '
                '"redis+cluster://host,host"'
            )
        return cls(**_redis(parts["scheme"], parts["kind"] or "", parts))


def node_text(node: Node) -> str:
    """Return ``host:port``, with brackets around an IPv6 address."""
    host, port = node
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _redis(scheme: str, kind: str, parts: re.Match[str]) -> dict[str, Any]:
    wanted = f'write "{scheme}:{_FORMS[kind]}"'
    check_characters(parts.string, wanted)
    login, _, hosts = (parts["authority"] or "").rpartition("@")
    if not kind and "," in hosts:
        raise ValueError(
            f'several hosts are named; write "{scheme}+sentinel://…" if they are sentinels, '
            f'"{scheme}+cluster://…" if they are nodes of a cluster'
        )
    if parts["fragment"]:
        raise ValueError(f"there is a fragment (#); {wanted}")
    username, password = _login(login, wanted)
    master, database = _path(kind, parts["path"] or "", wanted)
    found = {
        "scheme": scheme,
        "nodes": tuple(_node(scheme, host, _PORTS[kind], wanted) for host in hosts.split(",")),
        "username": username,
        "password": password,
    }
    given = _parameters(kind, parts["query"], wanted)
    if kind == "sentinel":
        if master and "master" in given:
            raise ValueError(f"the master is named twice; {wanted}")
        given.setdefault("master", master)
        if not _MASTER.fullmatch(given["master"]):
            raise ValueError(f"the name of the master is missing or malformed; {wanted}")
        if given.get("sentinel_username") and not given.get("sentinel_password"):
            raise ValueError(f"sentinel_username is given without sentinel_password; {wanted}")
    if not _DATABASE.fullmatch(database):
        raise ValueError(f"the Redis database is not a number; {wanted}")
    if kind == "cluster" and int(database):
        raise ValueError(f"a Redis Cluster has no database but 0; {wanted}")
    return found | given | {"database": int(database)}


def _login(text: str, wanted: str) -> tuple[str | None, str | None]:
    username, _, password = map(unquote, text.partition(":"))
    if username and not password:
        raise ValueError(f"a user is named without a password; {wanted}")
    return username or None, password or None


def _node(scheme: str, text: str, default: int, wanted: str) -> Node:
    _, host, port = split_url(f"{scheme}://{text}", wanted)
    return host, port or default


def _path(kind: str, path: str, wanted: str) -> tuple[str, str]:
    """Read ``/NAME``, ``/NAME/DB`` or ``/DB``; return the master, or nothing, and the database."""
    first, slash, second = path.removeprefix("/").partition("/")
    if kind == "sentinel" and first and (slash or not _DATABASE.fullmatch(first)):
        return unquote(first), second or "0"
    if slash:
        raise ValueError(f"the Redis database is not a number; {wanted}")
    return "", first or "0"


def _parameters(kind: str, query: str | None, wanted: str) -> dict[str, str]:
    if query is None:
        return {}
    items = [item.partition("=") for item in query.split("&")]
    known = ("master", "sentinel_username", "sentinel_password") if kind == "sentinel" else ()
    found = {name: unquote(value) for name, _, value in items}
    if len(found) < len(items) or not all(found.values()) or not found.keys() <= set(known):
        raise ValueError(
            f"what follows the ? must be {', '.join(known)}, each once with a value; {wanted}"
            if known
            else f"nothing may follow a ?; {wanted}"
        )
    return found
