"""Clients for game backends and tools: typed methods, and typed errors by reason.

>>> from odingw.client import AccessKeyTokens, GatewayClient, RoomNotFound
>>> tokens = AccessKeyTokens("AcIbjUrHA8EV62TAGYcwDtHhQ8wN3lXmcKtFtN/SvdMA")
>>> client = GatewayClient("https://gateway.example", tokens)
>>> client
GatewayClient('https://gateway.example/')

``GatewayClient`` and ``InternalClient`` block, and import nothing of Twisted;
``AsyncGatewayClient`` and ``AsyncInternalClient`` return Deferreds. See ``docs/backends.rst``.
"""

from typing import TYPE_CHECKING, Any

from odingw.client.blocking import GatewayClient, InternalClient
from odingw.client.errors import (
    Forbidden,
    GatewayError,
    InsecureConnection,
    InternalError,
    InvalidParams,
    MethodNotAllowed,
    MethodNotFound,
    NoServer,
    NotFound,
    PeerLimitExceeded,
    RateLimited,
    Refused,
    RidBaseMismatch,
    RidEmpty,
    RoomBanned,
    RoomLimitExceeded,
    RoomMismatch,
    RoomNotFound,
    ServerNotFound,
    StoreUnavailable,
    TooLarge,
    TooManyBans,
    TooManyTasks,
    TransportError,
    Unauthorized,
    Unavailable,
    UnexpectedReply,
    UserBanned,
)
from odingw.client.retry import Retry
from odingw.client.tokens import AccessKeyTokens
from odingw.client.values import Connection, Info, Room, Server

if TYPE_CHECKING:
    from odingw.client.asynchronous import AsyncGatewayClient, AsyncInternalClient

__all__ = [
    "AccessKeyTokens",
    "AsyncGatewayClient",
    "AsyncInternalClient",
    "Connection",
    "Forbidden",
    "GatewayClient",
    "GatewayError",
    "Info",
    "InsecureConnection",
    "InternalClient",
    "InternalError",
    "InvalidParams",
    "MethodNotAllowed",
    "MethodNotFound",
    "NoServer",
    "NotFound",
    "PeerLimitExceeded",
    "RateLimited",
    "Refused",
    "Retry",
    "RidBaseMismatch",
    "RidEmpty",
    "Room",
    "RoomBanned",
    "RoomLimitExceeded",
    "RoomMismatch",
    "RoomNotFound",
    "Server",
    "ServerNotFound",
    "StoreUnavailable",
    "TooLarge",
    "TooManyBans",
    "TooManyTasks",
    "TransportError",
    "Unauthorized",
    "Unavailable",
    "UnexpectedReply",
    "UserBanned",
]


def __getattr__(name: str) -> Any:
    """Import the clients for Twisted only where they are asked for (PEP 562)."""
    if name in ("AsyncGatewayClient", "AsyncInternalClient"):
        from odingw.client import asynchronous

        return getattr(asynchronous, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
