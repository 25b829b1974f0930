"""The sections of the configuration and their defaults, named as the keys of the TOML file.

A value that the declared types cannot judge is checked in ``__post_init__``, which raises
``ValueError`` with a text that begins with the key. All times are seconds.
"""

from pathlib import Path
from typing import Annotated, Final, Literal

from msgspec import Meta, field

from odingw.config.gateway import Gateway
from odingw.config.parts import Proxies, check_endpoints
from odingw.config.state_address import StateAddress
from odingw.config.turn import Turn
from odingw.config.types import (
    Count,
    CountOrOff,
    EndpointList,
    FilePath,
    ProxyList,
    RateOrOff,
    Seconds,
    Section,
    Switch,
    check_hosts,
    check_users,
    key_text,
)

DEFAULT_STATE: Final = "sqlite:odingw.sqlite"


class Listen(Section, frozen=True, kw_only=True):
    """Where to listen, as Twisted endpoint strings.

    Attributes:
        public: client API, TURN, ``/clients``, ``/ping``.
        internal: if any, ``/internal`` is served here only; else see ``odingw.config.place``.
        admin: status page, metrics, health; may repeat a public endpoint, which is then shared.
        reuse_port: several processes share one port.
        trusted_proxies: whose PROXY lines and forwarded headers count; ``"unix"``: those of
            peers on unix sockets.
        shutdown_delay: how long readiness is off before listening stops.
    """

    public: EndpointList = ("tcp:7000",)
    internal: EndpointList = ()
    admin: EndpointList = ("tcp:7001:interface=127.0.0.1",)
    reuse_port: Switch = False
    trusted_proxies: ProxyList = Proxies()
    shutdown_delay: Annotated[
        float, Meta(ge=0, le=3600, description="a number of seconds from 0 to 3600")
    ] = 0.0

    def __post_init__(self) -> None:
        """Check the endpoint strings.

        Raises:
            ValueError: one of them is wrong, or ``public`` names none.
        """
        if not self.public:
            raise ValueError('public: no endpoint is given; write at least one, as ["tcp:7000"]')
        for key in ("public", "internal", "admin"):
            try:
                check_endpoints(getattr(self, key))
            except ValueError as error:
                raise ValueError(f"{key}{error}") from None


class Tls(Section, frozen=True, kw_only=True):
    """What an ``ssl:`` endpoint without arguments of its own uses; both are PEM files."""

    certificate: FilePath = Path("fullchain.pem")
    private_key: FilePath = Path("privkey.pem")


class Log(Section, frozen=True, kw_only=True):
    """What is logged, and how."""

    level: Annotated[
        Literal["debug", "info", "warn", "error"],
        Meta(description='"debug", "info", "warn" or "error"'),
    ] = "info"
    format: Annotated[Literal["pretty", "json"], Meta(description='"pretty" or "json"')] = "pretty"


class State(Section, frozen=True, kw_only=True):
    """Where the grid's state lives.

    Attributes:
        url: of the store.
        synchronous: ``normal``: a power cut may cost all since the last checkpoint; ``full``: it
            costs nothing that was answered (``sqlite:``).
        prefix: how the names of keys begin (Redis).
        ca_file: PEM file of the authorities whose certificates are accepted (``rediss:``); without
            it, those that the system trusts.
        certificate: PEM file of the certificate that this gateway shows (``rediss:``), with its
            chain if there is one.
        private_key: PEM file of its key; without it, the key is in the certificate's file.
    """

    hidden_keys = frozenset({"url"})

    url: Annotated[str, Meta(description='a state URL such as "memory:"')] = DEFAULT_STATE
    synchronous: Annotated[Literal["normal", "full"], Meta(description='"normal" or "full"')] = (
        "normal"
    )
    prefix: Annotated[
        str,
        Meta(
            pattern=r"\A[A-Za-z0-9._-]{1,64}\Z",
            description="1 to 64 letters, digits, dots, dashes or underscores",
        ),
    ] = "odingw"
    ca_file: FilePath | None = None
    certificate: FilePath | None = None
    private_key: FilePath | None = None

    def __post_init__(self) -> None:
        """Check the URL, and that files for TLS are given where they are used.

        Raises:
            ValueError: it is malformed, or a file would be ignored.
        """
        try:
            address = StateAddress.parse(self.url)
        except ValueError as error:
            raise ValueError(f"url: {error}") from None
        for name in ("ca_file", "certificate", "private_key"):
            if getattr(self, name) is not None and address.shared and not address.tls:
                raise ValueError(
                    f"{name}: without TLS it is not used; write a state.url that begins with "
                    f'"{address.scheme.replace("redis", "rediss")}:", or take it out'
                )
        if self.private_key is not None and self.certificate is None:
            raise ValueError("private_key: there is no certificate that it belongs to; name it too")

    @property
    def address(self) -> StateAddress:
        """The URL, taken apart."""
        return StateAddress.parse(self.url)


class Admin(Section, frozen=True, kw_only=True):
    """The admin endpoints; without users, nothing there changes state.

    Attributes:
        hosts: names, and patterns of them, that ``Host`` may have while there are no users, beside
            an IP address and ``localhost``. ``*`` stands for any characters.
        users: passwords by user name.
    """

    hidden_keys = frozenset({"users"})

    hosts: Annotated[
        tuple[str, ...], Meta(description='a list of host names such as ["*.svc.cluster.local"]')
    ] = ()
    users: Annotated[dict[str, str], Meta(description='name = "password"')] = field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        """Check names and passwords.

        Raises:
            ValueError: no ``Host`` can have a name, a user cannot log in under theirs, or has an
                empty password.
        """
        check_hosts("hosts", self.hosts)
        check_users(self.users)
        for name, password in self.users.items():
            if not password:
                raise ValueError(f"users.{key_text(name)}: the password is empty; write one")


class Limits(Section, frozen=True, kw_only=True):
    """Bounds on what callers can make the gateway do; sizes are bytes."""

    body: Count = 65536
    report_body: Count = 8388608
    header_bytes: Count = 16384
    header_timeout: Seconds = 10.0
    body_timeout: Seconds = 60.0
    unfinished_bytes: Count = 67108864
    idle_timeout: Seconds = 75.0
    batch: Count = 50
    token: Count = 8192
    connections: Count = 10000
    connections_per_address: CountOrOff = 0
    requests_per_second: RateOrOff = 0.0
    requests_per_second_per_key: RateOrOff = 0.0
    rooms_per_report: Count = 50000
    queued_tasks: Count = 1000


class Config(Section, frozen=True, kw_only=True):
    """The whole configuration; ``turn`` is None where TURN is not configured."""

    listen: Listen = Listen()
    tls: Tls = Tls()
    log: Log = Log()
    state: State = State()
    gateway: Gateway = Gateway()
    admin: Admin = Admin()
    limits: Limits = Limits()
    turn: Turn | None = None
