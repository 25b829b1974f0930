r"""Where to listen: Twisted's endpoint strings, with what a server needs beyond them.

A description is ``type:argument:…:name=value:…``. A ``:`` or ``\`` within a value is written with
a backslash before it, and so is a ``=`` in a value without a name. The types:

``tcp:PORT[:interface=…][:backlog=…]``
    All IPv4 addresses, or the interface's; an IPv6 one (``interface=\:\:1``) is fine. Port 0 stands
    for any free one. ``tcp6:`` is the same with all IPv6 addresses as the default.
``ssl:PORT[:privateKey=…][:certKey=…][:interface=…][:backlog=…][:extraCertChain=…][:dhParameters=…]``
    TLS 1.2 or newer over TCP. The certificate is ``odingw.web.tls``'s affair, and may be renewed.
    Without ``privateKey`` it is the configured one; without ``certKey`` the private key's file
    holds the certificate too.
``unix:PATH[:mode=…][:backlog=…][:lockfile=…]``
    A Unix socket. ``mode`` is octal, 666 unless given: whoever may enter the folder may connect, so
    restrict the folder. ``lockfile=0`` leaves out the file ``PATH.lock``. What a crashed process has
    left behind is removed.
``systemd:domain=INET|INET6|UNIX:name=…``
    A socket that systemd hands over, by name or by ``index``.
``haproxy:`` and any of these
    Every connection begins with a line of the PROXY protocol (version 1 or 2). With ``ssl:`` it
    precedes the TLS handshake, as the protocol demands and proxies do; Twisted's own ``haproxy:ssl:``
    looks for it inside the encrypted stream.

Any other type is Twisted's or a plugin's, as installed. Names and order of arguments are Twisted's.
"""

import os
import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs
from twisted.internet import defer
from twisted.internet.abstract import isIPv6Address
from twisted.internet.endpoints import (
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    UNIXServerEndpoint,
    serverFromString,
    wrapServerTLS,
)
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IReactorTime,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.internet.tcp import makeBinding
from twisted.plugin import getPlugins
from twisted.protocols.haproxy import proxyEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer  # type: ignore[import-untyped]  # zope has no types

from odingw.errors import ConfigError
from odingw.web.tls import CertificateFiles, ReloadingContextFactory

_ARGUMENTS: Final[dict[str, tuple[str, ...]]] = {
    "tcp": ("port", "interface", "backlog"),
    "tcp6": ("port", "backlog", "interface"),
    "ssl": (
        "port",
        "privateKey",
        "certKey",
        "sslmethod",
        "interface",
        "backlog",
        "extraCertChain",
        "dhParameters",
    ),
    "unix": ("address", "mode", "backlog", "lockfile"),
    "systemd": ("domain", "index", "name"),
}
"""The arguments of the types that are read here, in the order in which they may go without names."""

_PROXIED: Final = "haproxy"
_MAX_PORT: Final = 65535
_MAX_UNIX_PATH: Final = 107
_BACKLOG: Final = "1024"
"""Connections that may wait to be accepted: when many clients come at once (they do after an
outage), Twisted's 50 fill within milliseconds, and the rest wait a second or fail."""

_HOST_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")


@attrs.frozen
class Listener:
    """A place to listen at.

    Attributes:
        description: the endpoint string as given.
        endpoint: what ``listen`` is called on; a failure is ``CannotListenError`` (of
            ``twisted.internet.error``), for ``unix:`` in cases where Twisted has others, too.
        tls: the certificate of an ``ssl:`` endpoint, to be polled; None for all others.
        proxied: whether connections begin with a PROXY line, so that a peer's address is what that
            line says.
    """

    description: str
    endpoint: IStreamServerEndpoint
    tls: ReloadingContextFactory | None
    proxied: bool


def listener(
    reactor: Any, description: str, *, tls: CertificateFiles | None, reuse_port: bool = False
) -> Listener:
    """Read an endpoint string; nothing is opened before its ``listen`` is called.

    Args:
        reactor: provides what the endpoint's type takes: ``IReactorTCP``, ``IReactorUNIX`` or
            ``IReactorSocket``, and ``IReactorTime`` for ``ssl:``.
        description: as this module describes.
        tls: the certificate for ``ssl:`` endpoints that name none; None if there is none.
        reuse_port: let several processes listen on the port (``SO_REUSEPORT``); for ``tcp:``,
            ``tcp6:`` and ``ssl:``, and without effect for others.

    Raises:
        ConfigError: it cannot be used; the text is one line that says what is wrong and wanted.
    """
    kind, colon, arguments = description.partition(":")
    proxied = kind == _PROXIED
    inner = arguments if proxied else description
    if proxied:
        kind, colon, arguments = inner.partition(":")
        if kind == _PROXIED:
            raise ConfigError(f'"{_PROXIED}:" stands there twice; write it once')
    contexts = None
    if kind in _ARGUMENTS:
        named = _Arguments(kind, arguments)
        if kind == "unix":
            endpoint = _unix(reactor, named)
        elif kind == "systemd":
            endpoint = _systemd(reactor, named, inner)
        else:
            endpoint = _tcp(reactor, named, reuse_port=reuse_port)
        if kind == "ssl":
            contexts = _contexts(named, tls)
    else:
        endpoint = _plugin(reactor, kind, inner)
    if proxied:
        endpoint = IStreamServerEndpoint(proxyEndpoint(endpoint))
    if contexts is not None:
        endpoint = wrapServerTLS(
            IOpenSSLServerConnectionCreator(contexts), endpoint, IReactorTime(reactor)
        )
    return Listener(description, endpoint, contexts, proxied)
