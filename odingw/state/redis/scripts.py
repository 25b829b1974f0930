"""Carries out the scripts, in which the rules of a pool are written once more, for Redis."""

from collections.abc import Callable, Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any, Final

from msgspec import Raw, Struct, msgpack
from twisted.internet.defer import Deferred

from odingw.state.redis.errors import RedisRefusedError

Execute = Callable[..., Deferred[Any]]
"""Carries out a command (:meth:`odingw.state.redis.link.Link.execute`)."""

_FOLDER: Final = files("odingw.state.redis").joinpath("scripts")

_PARTS: Final = {
    "enter": ("enter",),
    "takeover": ("takeover",),
    "connect": ("books", "connect"),
    "report": ("books", "deliveries", "report"),
    "settle": ("books", "deliveries", "settle"),
    "manage": ("books", "manage"),
    "tick": ("books", "tick"),
    "look": ("books", "look"),
    "resume": ("books", "deliveries", "resume"),
    "restore": ("books", "restore"),
}


class Script:
    """A script, known to Redis by its hash.

    Args:
        name: of the file, without its ending.
    """

    def __init__(self, name: str) -> None:
        parts = [_FOLDER.joinpath(f"{part}.lua").read_text("utf-8") for part in _PARTS[name]]
        self._text = "\n".join(parts)
        self._hash = sha1(self._text.encode()).hexdigest()  # noqa: S324  -- Redis knows it by that

    def __call__(
        self, execute: Execute, keys: Sequence[str], *arguments: str | bytes
    ) -> Deferred[Any]:
        """Carry it out; Redis is sent its text only if it does not have it.

        Raises:
            RedisAwayError: no answer came.
            RedisRefusedError: Redis refuses, or the script ended with an error.
        """
        command = ("EVALSHA", self._hash, str(len(keys)), *keys, *arguments)

        def load(failure: Any) -> Any:
            failure.trap(RedisRefusedError)
            if failure.value.kind != "noscript":
                return failure
            loaded = execute("SCRIPT", "LOAD", self._text)
            return loaded.addCallback(lambda _: execute(*command))

        return execute(*command).addErrback(load)


SCRIPTS: Final = {name: Script(name) for name in _PARTS}
"""All scripts by name."""

encode: Final = msgpack.Encoder().encode
decode: Final = msgpack.Decoder(list[Any]).decode


class Look(Struct, array_like=True):
    """What ``look.lua`` answers."""

    skipped: list[str]
    now: float
    servers: list[Raw]
    tallies: Raw
    facts: list[Raw]
    usage: Raw
    demo: list[int]
    gateways: list[str]
    growth: float
    done: list[str]


decode_look: Final = msgpack.Decoder(Look).decode
