"""What odingw uses of Twisted although Twisted calls it private.

Twisted has no public way to ask what of a reply the kernel has not taken yet, to hold a request
back until then, or to read a PROXY header before TLS. Another release may rename any of this without a
word, and a reply that is wrongly taken for sent costs tasks. So :func:`check` looks for every name
at the start, and a start without one fails.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from types import FunctionType
from typing import Any, Final

from twisted.internet.abstract import FileDescriptor
from twisted.internet.tcp import Server
from twisted.protocols import policies, tls

from odingw.errors import ConfigError
from twisted import __version__

try:
    from twisted.protocols.haproxy._wrapper import HAProxyProtocolWrapper, HAProxyWrappingFactory
except ImportError:
    # Good enough for the imports that lead to `check`, which says what is missing.
    HAProxyProtocolWrapper = policies.ProtocolWrapper  # type: ignore[assignment,misc]
    HAProxyWrappingFactory = policies.WrappingFactory  # type: ignore[assignment,misc]

__all__ = ["NAMES", "HAProxyProtocolWrapper", "HAProxyWrappingFactory", "check"]

NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "twisted.web.http.HTTPChannel": (
        "_command",
        "_finishRequestBody",
        "_handlingRequest",
        "_networkProducer",
        "_path",
        "_respondToBadRequestAndDisconnect",
        "_savedTimeOut",
        "_transferDecoder",
        "_version",
    ),
    "twisted.web.http.Request": ("_cleanup",),
    "twisted.web.http._IdentityTransferDecoder": ("contentLength",),
    "twisted.web.http._ChunkedTransferDecoder": ("_trailerHeaders",),
    "twisted.internet.abstract.FileDescriptor": (
        "_tempDataBuffer",
        "dataBuffer",
        "offset",
        "producer",
        "producerPaused",
    ),
    "twisted.protocols.tls.TLSMemoryBIOProtocol": ("_appSendBuffer",),
    "twisted.protocols.tls.BufferingTLSTransport": ("_aggregator",),
    "twisted.protocols.tls._AggregateSmallWrites": ("_buffer",),
    "twisted.protocols.haproxy._wrapper.HAProxyProtocolWrapper": ("_proxyInfo",),
    "twisted.protocols.haproxy._wrapper.HAProxyWrappingFactory": ("protocol",),
}
"""By class, the attributes that odingw relies on; of private classes the public ones too."""


def check(names: Mapping[str, tuple[str, ...]] = NAMES) -> None:
    """Look for everything that odingw uses of Twisted and Twisted may rename.

    Raises:
        ConfigError: something is missing; the text names the release and the first such name.
    """
    for missing in _missing(names):
        raise ConfigError(
            f"Twisted {__version__} has no {missing}, which odingw needs; install a release of "
            "Twisted that this odingw allows (pip install odingw chooses one)"
        )


def _missing(names: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    for path, attributes in names.items():
        module, _, name = path.rpartition(".")
        try:
            found = getattr(import_module(module), name)
        except (ImportError, AttributeError):
            yield path
            continue
        yield from (f"{path}.{each}" for each in attributes if not _has(found, each))


def _has(kind: type, name: str) -> bool:
    """Tell whether instances have an attribute: the class does, or one of its methods sets it."""
    return hasattr(kind, name) or any(
        name in member.__code__.co_names
        for base in kind.__mro__
        for member in vars(base).values()
        if isinstance(member, FunctionType)
    )


def unsent(transport: Any) -> int:
    """Count the bytes of a connection that the process still holds, and the kernel does not.

    A connection is a chain of wrappers around a socket's transport: TLS, PROXY protocol.
    """
    count = 0
    while transport is not None:
        if isinstance(transport, FileDescriptor):
            count += len(transport.dataBuffer) - transport.offset
            count += sum(map(len, transport._tempDataBuffer))
        elif isinstance(transport, tls.TLSMemoryBIOProtocol):
            count += sum(map(len, transport._appSendBuffer))
            aggregator = getattr(transport, "_aggregator", None)
            if isinstance(aggregator, tls._AggregateSmallWrites):
                count += sum(map(len, aggregator._buffer))
        transport = getattr(transport, "transport", None)
    return count


def is_sent(transport: Any) -> bool:
    """Tell whether the kernel has all that was written."""
    if type(transport) is Server:
        return not (transport.dataBuffer or transport._tempDataBuffer)
    return not unsent(transport)


def pause_until_sent(transport: Any) -> None:
    """Have the producer of a connection, which has bytes unsent, paused until the kernel has all.

    Twisted pauses one only where more than 64 kB are left.
    """
    while (inner := getattr(transport, "transport", None)) is not None:
        transport = inner
    if isinstance(transport, FileDescriptor) and transport.producer is not None:
        producer: Any = transport.producer
        transport.producerPaused = True
        producer.pauseProducing()


def send(transport: Any, data: bytes) -> None:
    """Write: at once if nothing is ahead of it, which spares a turn of the reactor."""
    if type(transport) is Server and not (transport.dataBuffer or transport._tempDataBuffer):
        sent = transport.writeSomeData(data)
        if isinstance(sent, int):
            data = data[sent:]
    if data:
        transport.write(data)
