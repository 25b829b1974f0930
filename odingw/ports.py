"""The ports: all are taken at the start, and those that serve open when the gateway can."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from odingw.errors import OdingwError
from odingw.listeners import Entry
from odingw.web.last_call import close_ports
from odingw.web.site import GatewaySite

_log = Logger("odingw")


class PortError(OdingwError):
    """A port cannot be had; the text is one line that says which, and why."""


class Ports:
    """Listens, in two steps.

    Args:
        entries: what to listen on, by endpoint string.
        make_site: makes what an endpoint serves.
        remedy: returns what to do about an endpoint that cannot be had.
        reactor: the reactor.

    Attributes:
        sites: what is served.
    """

    def __init__(
        self,
        entries: Mapping[str, Entry],
        make_site: Callable[[Entry], GatewaySite],
        remedy: Callable[[str], str],
        reactor: Any,
    ) -> None:
        self.sites: list[GatewaySite] = []
        self._entries = entries
        self._make_site = make_site
        self._remedy = remedy
        self._reactor = reactor
        self._ports: list[Any] = []
        self._closed: list[Callable[[], object]] = []

    def take(self) -> None:
        """Take all ports, and open those of the admin alone.

        A TCP port is bound only: who connects is refused, and goes elsewhere. Others listen, and
        let who connects wait.

        Raises:
            PortError: one cannot be had.
        """
        for description, entry in self._entries.items():
            site = self._make_site(entry)
            self.sites.append(site)
            if entry.roles == {"admin"}:
                self._listen(description, entry, site)
            elif entry.listener.tcp is not None:
                try:
                    entry.listener.tcp.bind()
                except CannotListenError as error:
                    raise self._error(description, error) from None
                self._closed.append(partial(self._listen, description, entry, site))
            else:
                port = self._listen(description, entry, site)
                port.stopReading()
                self._closed.append(port.startReading)

    def open(self) -> None:
        """Let everybody in.

        Raises:
            PortError: another process has taken a port after all.
        """
        closed, self._closed = self._closed, []
        for let_in in closed:
            let_in()

    def _listen(self, description: str, entry: Entry, site: GatewaySite) -> Any:
        listening: list[Any] = []
        endpoint: Any = entry.listener.endpoint
        endpoint.listen(site).addBoth(listening.append)
        if not listening or not IListeningPort.providedBy(listening[0]):
            raise self._error(description, listening[0].value if listening else None)
        self._ports.append(listening[0])
        _log.info(
            "listening on {odingw_endpoint} for {roles}",
            odingw_endpoint=description,
            roles=", ".join(sorted(entry.roles)),
        )
        return listening[0]

    def _error(self, description: str, error: Any) -> PortError:
        reason = error.socketError if isinstance(error, CannotListenError) else error
        return PortError(
            f"cannot listen on {description}: {reason or 'it did not answer'}; "
            f"free the address or {self._remedy(description)}"
        )

    def close(self) -> Deferred[Any]:
        """Let nobody in any more; who has been let in stays."""
        for entry in self._entries.values():
            if entry.listener.tcp is not None:
                entry.listener.tcp.unbind()
        return close_ports(self._ports, self._reactor)
