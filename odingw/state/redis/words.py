"""What operators are told of Redis: a line for each new reason, counts by kind, and its clock."""

from typing import Final, Protocol

from twisted.logger import Logger

from odingw.errors import ConfigError
from odingw.state.redis.errors import KINDS, RedisAwayError, RedisRefusedError

MOST_CLOCK_DIFFERENCE: Final = 2.0
"""Seconds between Redis's clock and this gateway's that are nothing to speak of."""

_MOST_LINES: Final = 50
"""Different reasons that are logged until all is well again."""

_MEANINGS: Final = {
    "away": "Redis is away",
    "policy": "Redis may throw the state away",
    "readonly": "Redis takes no writes, since it is a replica",
    "loading": "Redis is loading its data",
    "oom": "Redis takes no writes, since it has used up its maxmemory; give it more",
    "noperm": "Redis does not allow the user of state.url what odingw needs (etc/redis-users.acl)",
    "auth": "Redis does not accept the user or password of state.url",
    "moved": "the cluster serves this pool elsewhere now, or nowhere",
    "noreplicas": "Redis takes no writes, since too few replicas follow it (min-replicas-to-write)",
    "noscript": "Redis has forgotten the scripts",
    "busy": "Redis is busy with a script",
    "script": "a script failed in Redis",
    "other": "Redis refuses",
}

_log = Logger("odingw.state")


class Meter(Protocol):
    """Where counts go."""

    def store_failed(self, kind: str, count: int = 1) -> None:
        """Count what the store could not do."""

    def store_clock(self, difference: float) -> None:
        """Take in how many seconds the store's clock is ahead."""


class Words:
    """Tells operators of trouble with a Redis, each reason once until it is over.

    One is for one link and those that follow it; in a cluster each has its own.

    Args:
        meter: counts.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._said: set[str] = set()
        self._wrong_clock = False
        for kind in ("away", "policy", *KINDS):
            meter.store_failed(kind, 0)

    def failed(self, error: RedisAwayError | RedisRefusedError | ConfigError) -> str:
        """Count a failure, and say it unless it has been said.

        Args:
            error: what failed; a ``ConfigError`` is one of :func:`check_policy`.

        Returns:
            What it is, for people.
        """
        kind = "away" if isinstance(error, RedisAwayError) else getattr(error, "kind", "policy")
        self._meter.store_failed(kind)
        text = f"{_MEANINGS[kind]}: {error}"
        if text not in self._said and len(self._said) < _MOST_LINES:
            self._said.add(text)
            _log.error(
                "{reason}; known rooms are served on and reports answered, but no rooms are placed "
                "and no tasks accepted until this is over",
                reason=text,
            )
        return text

    def well(self) -> None:
        """Say that Redis does again what it should, if it did not."""
        if self._said:
            self._said.clear()
            _log.info("Redis is back")

    def clock(self, redis: float, own: float) -> None:
        """Compare the clock of Redis with this gateway's.

        Args:
            redis: Unix time there.
            own: Unix time here, in the middle between question and answer.
        """
        difference = redis - own
        self._meter.store_clock(difference)
        wrong = abs(difference) > MOST_CLOCK_DIFFERENCE
        if wrong and not self._wrong_clock:
            _log.warn(
                "the clock of Redis is {seconds:.1f} s {way} this gateway's; tokens are judged by "
                "this gateway's: set both by NTP",
                seconds=abs(difference),
                way="ahead of" if difference > 0 else "behind",
            )
        self._wrong_clock = wrong


def check_policy(info: bytes) -> None:
    """See that Redis throws nothing away; keys of odingw never expire, so ``volatile-*`` is good.

    Args:
        info: the answer to ``INFO memory``; one without the policy tells nothing.

    Raises:
        ConfigError: it throws away any key when it is full.
    """
    for line in info.splitlines():
        name, _, policy = line.partition(b":")
        if name == b"maxmemory_policy" and policy.startswith(b"allkeys-"):
            raise ConfigError(
                f"state.url: this Redis evicts keys when it is full (maxmemory-policy "
                f"{policy.decode()}), bans and queued tasks among them; set maxmemory-policy "
                "noeviction there, or use another Redis"
            )
