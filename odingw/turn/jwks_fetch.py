"""Fetching a JWK set: how long it may take, how large it may be, and from where it may come."""

from typing import Any, Final

from treq.client import HTTPClient
from twisted.internet.defer import Deferred

from odingw.errors import FetchError
from odingw.fetch import Clock, get, http_client

TIMEOUT: Final = 10.0
"""Seconds that a whole fetch may take."""

MAX_BYTES: Final = 1024 * 1024
"""The longest body that is read."""


def fetch(url: str, client: HTTPClient, clock: Clock) -> Deferred[bytes]:
    """Get the body of a URL.

    Redirects are not followed: a key's origin is the URL that the operator wrote.

    Args:
        url: an http or https URL.
        client: as from ``jwk_client``.
        clock: for the time limit.

    Returns:
        The body. It fails with a ``FetchError``; cancelling it closes the connection.
    """

    def too_late(*_: object) -> bytes:
        raise FetchError(f"no whole answer within {TIMEOUT:g} s")

    fetching = get(
        url, client, accept="application/jwk-set+json, application/json", max_bytes=MAX_BYTES
    )
    return Deferred.fromCoroutine(fetching).addTimeout(
        TIMEOUT,
        clock,  # type: ignore[arg-type]  # an IReactorTime in all but name
        too_late,
    )


def jwk_client(reactor: Any, policy: Any = None) -> HTTPClient:
    """Make a client for JWK sets: over http they come from this host only, and directly.

    Args:
        reactor: connects.
        policy: which certificates are good, an ``IPolicyForHTTPS``; None: what the system trusts.
    """
    return http_client(
        reactor, seconds=TIMEOUT, max_bytes=MAX_BYTES, http_anywhere=False, policy=policy
    )
