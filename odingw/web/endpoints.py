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
    restrict the folder. ``lockfile=0`` leaves out the file ``PATH.lock``. What a crashed process
    has left behind is removed.
``systemd:domain=INET|INET6|UNIX:name=…``
    A socket that systemd hands over, by name or by ``index``.
``haproxy:`` and any of these
    Every connection begins with a header of the PROXY protocol, version 1 or 2. With ``ssl:`` it
    stands before the TLS handshake, as the protocol demands and proxies do; Twisted on its own
    looks for it inside the encrypted stream, and still does with other types that encrypt.

Any other type is Twisted's or a plugin's, as installed. Names and order of arguments are Twisted's.
"""

import errno
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
    UNIXServerEndpoint,
    serverFromString,
)
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReactorTime,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.internet.protocol import connectionDone
from twisted.plugin import getPlugins
from twisted.python.failure import Failure
from zope.interface import implementer  # type: ignore[import-untyped]  # zope has no types

from odingw.config.parts import shown
from odingw.errors import ConfigError
from odingw.web.early import TcpEndpoint
from odingw.web.tls import CertificateFiles, ReloadingContextFactory, TlsFactory
from odingw.web.twisted_private import HAProxyProtocolWrapper, HAProxyWrappingFactory

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
"""The arguments of the types that are read here, in the order that they have without names."""

_TCP: Final = frozenset({"tcp", "tcp6", "ssl"})

_MAX_PORT: Final = 65535
_MAX_UNIX_PATH: Final = 107
_BACKLOG: Final = "1024"
"""Connections that may wait to be accepted: when many clients come at once (they do after an
outage), Twisted's 50 fill within milliseconds, and the rest wait a second or fail."""

_LINE_END: Final = b"\r\n"
_PROXY_1: Final = b"PROXY "
_PROXY_UNKNOWN: Final = b"PROXY UNKNOWN\r\n"
_PROXY_2: Final = b"\r\n\r\n\0\r\nQUIT\n"
_PROXY_2_FIXED: Final = 16
_PROXY_1_LONGEST: Final = 107
_PROXY_2_LONGEST: Final = 4096
"""Bytes of a header of the PROXY protocol, by version; 107 is the protocol's own limit. One of
version 2 says its length: proxies send some hundred bytes, and could 64 kB."""

_HOST_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")


@attrs.frozen
class Listener:
    """A place to listen at.

    Attributes:
        description: the endpoint string as given.
        endpoint: what ``listen`` is called on. It fails with ``CannotListenError`` (of
            ``twisted.internet.error``) if the system refuses.
        tls: the certificate of an ``ssl:`` endpoint, to be polled; None for all others.
        proxied: whether connections begin with a PROXY line, so that a peer's address is what that
            line says.
        binding: interface (empty: all) and port of a ``tcp:``, ``tcp6:`` or ``ssl:`` endpoint.
        tcp: what takes the port of such an endpoint before ``listen``; None for all others.
    """

    description: str
    endpoint: IStreamServerEndpoint
    tls: ReloadingContextFactory | None
    proxied: bool
    binding: tuple[str, int] | None = None
    tcp: TcpEndpoint | None = None


def listener(
    reactor: Any,
    description: str,
    *,
    tls: CertificateFiles | None,
    reuse_port: bool = False,
    folder: Path = Path(),
    header_timeout: float = 10.0,
) -> Listener:
    """Read an endpoint string; nothing is opened before its ``listen`` is called.

    Args:
        reactor: provides what the endpoint's type takes: ``IReactorTCP``, ``IReactorUNIX`` or
            ``IReactorSocket``, and ``IReactorTime`` for ``ssl:``.
        description: as this module describes.
        tls: the certificate for ``ssl:`` endpoints that name none; None if there is none.
        reuse_port: let several processes listen on the port (``SO_REUSEPORT``); for ``tcp:``,
            ``tcp6:`` and ``ssl:``, and without effect for others.
        folder: what relative paths in an ``ssl:`` or ``unix:`` description are relative to.
        header_timeout: seconds in which a header of the PROXY protocol must be complete, once it
            has begun.

    Raises:
        ConfigError: it cannot be used; the text is one line that says what is wrong and wanted.
    """
    kind, _, text = description.partition(":")
    # Twisted takes the type in upper and lower case alike.
    proxied = kind.lower() == "haproxy"
    inner = text if proxied else description
    kind, _, text = inner.partition(":")
    kind = kind.lower()
    if proxied and kind == "haproxy":
        raise ConfigError("haproxy: it stands there twice; write it once")
    arguments = _Arguments(kind, text, folder) if kind in _ARGUMENTS else None
    tcp = None
    if arguments is None:
        endpoint = _plugin(reactor, kind, inner)
    elif kind == "unix":
        endpoint = _unix(reactor, arguments)
    elif kind == "systemd":
        endpoint = _systemd(reactor, arguments, inner)
    else:
        tcp = _tcp(reactor, arguments, reuse_port=reuse_port)
        endpoint = IStreamServerEndpoint(tcp)
    contexts = _contexts(arguments, tls) if arguments is not None and kind == "ssl" else None
    if proxied:
        endpoint = IStreamServerEndpoint(_ProxyEndpoint(endpoint, reactor, header_timeout))
    if contexts is not None:
        endpoint = IStreamServerEndpoint(_TlsEndpoint(endpoint, contexts, IReactorTime(reactor)))
    binding = None
    if arguments is not None and kind in _TCP:
        binding = arguments.text("interface"), arguments.number("port", "", _MAX_PORT)
    return Listener(description, endpoint, contexts, proxied, binding, tcp)


class _ProxyLine(HAProxyProtocolWrapper):
    """A connection that begins with a header of the PROXY protocol, in any number of pieces.

    Some that are malformed make Twisted's parsers fail with errors of all kinds, which would be
    logged as bugs; strangers may send any. Twisted also takes and keeps those of 64 kB, and refuses
    those whose first piece is short. So it is given whole ones.
    """

    factory: "_ProxyFactory"
    _head = b""
    _overdue: Any = None

    def dataReceived(self, data: bytes) -> None:  # noqa: N802  -- Twisted's name
        """Take in bytes; a header that cannot be read, or is too long, ends the connection."""
        if self._proxyInfo is not None:
            wrapped: Any = self.wrappedProtocol
            wrapped.dataReceived(data)
            return
        data = self._head + data
        size = _header_size(data)
        if size is None:
            self._head = data
            if self._overdue is None:
                self._overdue = self.factory.clock.callLater(
                    self.factory.header_timeout, self._abort
                )
            return
        self._head = b""
        self._end_waiting()
        if not size:
            self.loseConnection()
            return
        if data.startswith(_PROXY_UNKNOWN):
            # Twisted wants something behind it.
            data = data.replace(_LINE_END, b" " + _LINE_END, 1)
        try:
            super().dataReceived(data)
        except Exception:
            if self._proxyInfo is not None:
                raise
            self.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802  -- Twisted's name
        """End."""
        self._end_waiting()
        super().connectionLost(reason)

    def _end_waiting(self) -> None:
        if self._overdue is not None and self._overdue.active():
            self._overdue.cancel()

    def _abort(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()


def _header_size(data: bytes) -> int | None:
    """Return how long the header is that the data begin with.

    Returns:
        Its size in bytes; 0 if they begin with none; None if it is not complete.
    """
    if data[:1] == _PROXY_2[:1]:
        if not data.startswith(_PROXY_2[: len(data)]):
            return 0
        if len(data) < _PROXY_2_FIXED:
            return None
        size = _PROXY_2_FIXED + int.from_bytes(data[14:16], "big")
        if size > _PROXY_2_FIXED + _PROXY_2_LONGEST:
            return 0
        return size if len(data) >= size else None
    if not data.startswith(_PROXY_1[: len(data)]):
        return 0
    size = data.find(_LINE_END, 0, _PROXY_1_LONGEST) + len(_LINE_END)
    if size < len(_LINE_END):
        return 0 if len(data) >= _PROXY_1_LONGEST else None
    return size


class _ProxyFactory(HAProxyWrappingFactory):
    """Puts the PROXY protocol in front of the connections of another factory."""

    protocol = _ProxyLine  # type: ignore[assignment]  # Twisted names its own wrapper there
    noisy = False

    def __init__(self, factory: IProtocolFactory, clock: Any, header_timeout: float) -> None:
        super().__init__(factory)
        self.clock = clock
        self.header_timeout = header_timeout


@implementer(IStreamServerEndpoint)
@attrs.frozen
class _ProxyEndpoint:
    """The PROXY protocol on top of another endpoint."""

    endpoint: IStreamServerEndpoint
    clock: Any
    header_timeout: float

    def listen(self, protocolFactory: IProtocolFactory) -> defer.Deferred[IListeningPort]:  # noqa: N803  -- the interface names it
        """Listen."""
        inner: Any = self.endpoint
        listening: defer.Deferred[IListeningPort] = inner.listen(
            _ProxyFactory(protocolFactory, self.clock, self.header_timeout)
        )
        return listening


@implementer(IStreamServerEndpoint)
@attrs.frozen
class _TlsEndpoint:
    """TLS on top of another endpoint."""

    endpoint: IStreamServerEndpoint
    contexts: Any
    clock: IReactorTime

    def listen(self, protocolFactory: IProtocolFactory) -> defer.Deferred[IListeningPort]:  # noqa: N803  -- the interface names it
        """Listen."""
        inner: Any = self.endpoint
        tls = TlsFactory(self.contexts, False, protocolFactory, self.clock)
        listening: defer.Deferred[IListeningPort] = inner.listen(tls)
        return listening


class _Arguments:
    """The arguments of one endpoint, by name; paths are relative to ``folder``.

    Raises:
        ConfigError: they are malformed, unknown, too many, or given twice.
    """

    def __init__(self, kind: str, text: str, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        self._values: dict[str, str] = {}
        names = _ARGUMENTS[kind]
        unnamed = iter(names)
        for given, value in self._fields(text):
            name = next(unnamed, None) if given is None else given
            if name is None:
                raise self.fault(
                    f"{shown(value)} is one argument too many; a ':' within a value is written "
                    r"'\:'"
                )
            if name not in names:
                known = ", ".join(known for known in names if known != "sslmethod")
                raise self.fault(f"there is no argument {shown(name)}; known are {known}")
            if name in self._values:
                raise self.fault(
                    rf"{name} is given twice; name it once, and write a ':' within a value '\:'"
                )
            self._values[name] = value

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def fault(self, text: str) -> ConfigError:
        """The error that says this of the endpoint."""
        return ConfigError(f"{self.kind}: {text}")

    def text(self, name: str) -> str:
        """A value; empty if it is not given."""
        return self._values.get(name, "")

    def number(self, name: str, default: str, highest: int) -> int:
        """A whole number from 0 to ``highest``."""
        text = self._values.get(name, default)
        if not text:
            raise self.fault(f"no {name} is given; write a number from 0 to {highest}")
        if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) > highest:
            raise self.fault(f"{name} is {shown(text)}; write a number from 0 to {highest}")
        return int(text)

    def path(self, name: str) -> Path | None:
        """A file's path; None if it is not given."""
        if name not in self._values:
            return None
        if not self._values[name]:
            raise self.fault(f"{name} is empty; write the path of a PEM file, or leave it out")
        return self.folder / self._values[name]

    def _fields(self, text: str) -> Iterator[tuple[str | None, str]]:
        """The fields between colons, each with its name or None, free of backslashes."""
        name: str | None = None
        value = ""
        characters = iter(text)
        for character in characters:
            if character == "\\":
                escaped = next(characters, None)
                if escaped is None:
                    raise self.fault(r"it ends in a lone backslash; write '\\' for one")
                value += escaped
            elif character == ":":
                yield name, value
                name, value = None, ""
            elif character == "=" and name is None:
                name, value = value, ""
            else:
                value += character
        yield name, value


def _tcp(reactor: Any, arguments: _Arguments, *, reuse_port: bool) -> TcpEndpoint:
    """The TCP part of a ``tcp:``, ``tcp6:`` or ``ssl:`` endpoint."""
    version_6 = arguments.kind == "tcp6"
    interface = arguments.text("interface")
    if interface and not (isIPv6Address(interface) or _HOST_NAME.fullmatch(interface)):
        raise arguments.fault(
            f"interface {shown(interface)} is no address; write one such as '127.0.0.1', or an "
            r"IPv6 one without brackets as '\:\:1'"
        )
    if interface and not isIPv6Address(interface):
        try:
            socket.getaddrinfo(interface, None)
        except OSError as error:
            raise arguments.fault(
                f"interface {shown(interface)} has no address ({error.strerror}); write one such "
                "as '127.0.0.1'"
            ) from None
    if version_6:
        interface = interface or "::"
    port = arguments.number("port", "", _MAX_PORT)
    backlog = arguments.number("backlog", _BACKLOG, _MAX_PORT)
    return TcpEndpoint(reactor, interface, port, backlog, reuse_port)


def _contexts(
    arguments: _Arguments, configured: CertificateFiles | None
) -> ReloadingContextFactory:
    """The certificate of an ``ssl:`` endpoint."""
    if "sslmethod" in arguments:
        raise arguments.fault("sslmethod cannot be chosen, TLS 1.2+ is always used; leave it out")
    private_key = arguments.path("privateKey")
    certificate = arguments.path("certKey")
    chain = arguments.path("extraCertChain")
    dh_parameters = arguments.path("dhParameters")
    if private_key is not None:
        files = CertificateFiles(private_key, certificate or private_key, chain, dh_parameters)
    elif certificate is not None:
        raise arguments.fault("certKey stands without privateKey; give both or neither")
    elif configured is None:
        raise arguments.fault(
            "no certificate is configured; write privateKey=FILE:certKey=FILE, or set "
            "tls.private_key and tls.certificate"
        )
    else:
        files = CertificateFiles(
            configured.private_key,
            configured.certificate,
            chain or configured.chain,
            dh_parameters or configured.dh_parameters,
        )
    try:
        return ReloadingContextFactory(files)
    except ConfigError as error:
        raise arguments.fault(str(error)) from None


def _unix(reactor: Any, arguments: _Arguments) -> IStreamServerEndpoint:
    path = arguments.text("address")
    if not path or "\0" in path:
        raise arguments.fault("no path is given; write one such as 'unix:/run/odingw/web.sock'")
    path = str(arguments.folder / path)
    if len(os.fsencode(path)) > _MAX_UNIX_PATH:
        raise arguments.fault(
            f"{shown(path)} is too long for a socket; at most {_MAX_UNIX_PATH} bytes are possible"
        )
    mode = arguments.text("mode") or "666"
    if not re.fullmatch(r"[0-7]{3,4}", mode):
        raise arguments.fault(f"mode is {shown(mode)}; write it in octal, such as 660")
    backlog = arguments.number("backlog", _BACKLOG, _MAX_PORT)
    lock = bool(arguments.number("lockfile", "1", 1))
    endpoint = UNIXServerEndpoint(reactor, path, backlog, int(mode, 8), lock)
    return IStreamServerEndpoint(_UnixEndpoint(Path(path), endpoint))


@implementer(IStreamServerEndpoint)
@attrs.frozen
class _UnixEndpoint:
    """A Unix socket, in the place of one that a crashed process may have left.

    Twisted trusts the process number in ``PATH.lock``. In a container the process after a crash
    often has the number of the one before it, so whether anybody accepts connections decides.
    """

    path: Path
    endpoint: UNIXServerEndpoint

    def listen(self, protocolFactory: IProtocolFactory) -> defer.Deferred[IListeningPort]:  # noqa: N803  -- the interface names it
        """Listen; every failure of the system is ``CannotListenError``."""
        try:
            self._make_room()
        except OSError as error:
            return defer.fail(self._error(error.strerror or str(error)))
        except CannotListenError as error:
            return defer.fail(error)
        listening: defer.Deferred[IListeningPort] = self.endpoint.listen(protocolFactory)
        return listening.addErrback(self._failed)

    def _make_room(self) -> None:
        try:
            found = self.path.lstat().st_mode
        except FileNotFoundError:
            found = None
        if found is not None:
            if not stat.S_ISSOCK(found):
                raise self._error("there is a file that is no socket")
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.setblocking(False)
                answer = probe.connect_ex(str(self.path))
            if answer in {0, errno.EAGAIN}:
                raise self._error("another process listens there")
            if answer not in {errno.ECONNREFUSED, errno.ENOENT}:
                raise self._error(os.strerror(answer))
        self.path.unlink(missing_ok=True)
        lock = Path(f"{self.path}.lock")
        if lock.is_symlink():
            lock.unlink(missing_ok=True)

    def _failed(self, failure: Failure) -> IListeningPort:
        if isinstance(failure.value, OSError):
            raise self._error(failure.value.strerror or str(failure.value))
        failure.raiseException()

    def _error(self, reason: str) -> CannotListenError:
        return CannotListenError(None, str(self.path), reason)


@implementer(IStreamServerEndpoint)
@attrs.frozen
class _MissingSocket:
    """A socket that systemd has not handed over: no fault of the string, but not to be had."""

    which: str

    def listen(self, protocolFactory: IProtocolFactory) -> defer.Deferred[IListeningPort]:  # noqa: N803  -- the interface names it
        """Fail with ``CannotListenError``."""
        reason = "systemd handed over no such socket; start the service by its socket unit"
        return defer.fail(CannotListenError("systemd", self.which, reason))


def _systemd(reactor: Any, arguments: _Arguments, description: str) -> IStreamServerEndpoint:
    domain = arguments.text("domain")
    if domain not in {"INET", "INET6", "UNIX"}:
        raise arguments.fault(f"domain is {shown(domain)}; write INET, INET6 or UNIX")
    if ("index" in arguments) == ("name" in arguments):
        raise arguments.fault("write either name=, as in FileDescriptorName=, or index=")
    if "index" in arguments:
        which = f"index={arguments.number('index', '', _MAX_PORT)}"
    else:
        which = f"name={arguments.text('name')}"
    try:
        endpoint: Any = serverFromString(reactor, description)
    except LookupError:
        return IStreamServerEndpoint(_MissingSocket(which))
    # Twisted takes the domain on trust, and would misread every peer's address.
    with socket.socket(fileno=os.dup(endpoint.fileno)) as handed:
        family = handed.family
    if family != endpoint.addressFamily:
        actual = family.name.removeprefix("AF_")
        raise arguments.fault(f"domain is {domain}, but the socket is {actual}; write {actual}")
    return IStreamServerEndpoint(endpoint)


def _plugin(reactor: Any, kind: str, description: str) -> IStreamServerEndpoint:
    prefixes = {plugin.prefix for plugin in getPlugins(IStreamServerEndpointStringParser)}
    if kind.lower() not in {prefix.lower() for prefix in prefixes}:
        known = ", ".join(sorted(prefixes | _ARGUMENTS.keys()))
        raise ConfigError(f"there is no endpoint type {shown(kind)}; known are {known}")
    try:
        return IStreamServerEndpoint(serverFromString(reactor, description))
    except Exception as error:
        # A plugin may raise anything. Where its parameters do not fit, Python names its function.
        reason = re.sub(r"^[\w.<>]+\(\) ", "", " ".join(str(error).split()))
        raise ConfigError(f"{kind}: {reason or type(error).__name__}") from error
