"""The ``[gateway]`` section; see ``odingw.config.sections`` for the conventions."""

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, field

from odingw.config.parts import FunctionReference, Networks, check_http_url, check_pool
from odingw.config.types import (
    TEN_YEARS,
    Count,
    CountOrNone,
    Name,
    NetworkList,
    PatternList,
    Seconds,
    Section,
    Switch,
    Text,
    WholeSeconds,
    check_patterns,
    check_users,
)
from odingw.errors import KeyMaterialError
from odingw.tokens import decode_master_keys

COMPATIBILITY_PRESETS: Final[dict[str, dict[str, Any]]] = {
    "strict": {},
    "0.18": {
        "leeway": 300,
        "require_subject": False,
        "require_expiry": False,
        "room_match": "prefix",
    },
}
"""What ``gateway.compatibility`` sets in ``[gateway]`` where the file does not."""


class Pools(Section, frozen=True, kw_only=True):
    """Separate grids, each served under its own first path segment.

    Attributes:
        available: their names.
        default: the one that is served at ``/`` too; empty: ``/`` is a pool of its own.
    """

    available: Annotated[
        tuple[str, ...], Meta(description='a list of pool names such as ["eu", "us"]')
    ] = ()
    default: Annotated[str, Meta(description="the name of an available pool, in quotes")] = ""

    def __post_init__(self) -> None:
        """Check the names.

        Raises:
            ValueError: one cannot be a pool, is there twice, or the default is not available.
        """
        for index, name in enumerate(self.available):
            try:
                check_pool(name)
            except ValueError as error:
                raise ValueError(f"available[{index}]: {error}") from None
            if name in self.available[:index]:
                raise ValueError(f"available[{index}]: {name!r} is listed twice; remove one")
        if self.default and self.default not in self.available:
            raise ValueError(
                "default: no such pool is available; name one of pools.available or leave it empty"
            )


class AccessKeyConfig(Section, frozen=True, kw_only=True):
    """A customer's access key.

    Attributes:
        namespace: of the rooms it opens; None: the customer's id.
        public_key: the JWK. It is not checked here: a broken key is skipped, not fatal.
    """

    namespace: Name | None = None
    public_key: Annotated[
        dict[str, Any],
        Meta(description='a JWK: { kid = "…", kty = "OKP", crv = "Ed25519", x = "…" }'),
    ]

    # An operator may have pasted a private JWK.
    hidden_keys = frozenset({"public_key"})


class CustomerConfig(Section, frozen=True, kw_only=True):
    """A customer of the static list; a limit of None is none."""

    id: Name
    max_peers: CountOrNone | None = None
    max_rooms: CountOrNone | None = None
    access_keys: Annotated[
        tuple[AccessKeyConfig, ...],
        Meta(description="[[gateway.customers.access_keys]] tables"),
    ] = ()


class CustomerSource(Section, frozen=True, kw_only=True):
    """Where further customers come from; exactly one of the first three is given.

    Attributes:
        url: fetched with GET.
        file: a JSON file.
        function: a Python function, called without arguments.
        interval: how long to wait between refreshes.
    """

    hidden_keys = frozenset({"url"})

    url: Annotated[str | None, Meta(description="a http or https URL, in quotes")] = None
    file: Annotated[Path | None, Meta(description="the path of a JSON file, in quotes")] = None
    function: Annotated[
        FunctionReference | None, Meta(description='"package.module:name" or "file.py:name"')
    ] = None
    interval: Seconds = 300.0

    def __post_init__(self) -> None:
        """Check that there is one source, and its URL.

        Raises:
            ValueError: none or several are given, or the URL is not one.
        """
        given = [key for key in ("url", "file", "function") if getattr(self, key) is not None]
        if not given:
            raise ValueError("url: no source is given; write one of url, file and function")
        if len(given) > 1:
            raise ValueError(
                f"{given[1]}: {given[0]} is given too; keep one of url, file and function"
            )
        if self.url is not None:
            try:
                check_http_url(self.url)
            except ValueError as error:
                raise ValueError(f"url: {error}") from None


class InternalUser(Section, frozen=True, kw_only=True):
    """Who may call ``/internal``.

    Attributes:
        password: for HTTP Basic.
        servers: address patterns of the servers the user may speak for; empty: any.
    """

    hidden_keys = frozenset({"password"})

    password: Text
    servers: PatternList = ()

    def __post_init__(self) -> None:
        """Check the patterns.

        Raises:
            ValueError: one is empty.
        """
        check_patterns("servers", self.servers)


class Internal(Section, frozen=True, kw_only=True):
    """The server API, ``/internal``.

    Attributes:
        users: for HTTP Basic, by name; without any, only ``allow`` decides.
        allow: whose calls are taken; with users, both must fit. Empty: nobody has said so, and this
            host's are.
        servers: address patterns that may get settings and report; empty: any.
        server_tokens: take client tokens that attached servers signed.
    """

    users: Annotated[
        dict[str, InternalUser],
        Meta(description='name = "password" or name = { password = "…", servers = ["…"] }'),
    ] = field(default_factory=dict)
    allow: NetworkList = Networks()
    servers: PatternList = ()
    server_tokens: Switch = True

    def __post_init__(self) -> None:
        """Check names and patterns.

        Raises:
            ValueError: a user cannot log in under that name, or a pattern is empty.
        """
        check_users(self.users)
        check_patterns("servers", self.servers)


class DemoLimits(Section, frozen=True, kw_only=True):
    """Demo mode: what customers that nobody configured may use, each and together."""

    max_peers: CountOrNone
    max_rooms: CountOrNone
    total_peers: CountOrNone


class Gateway(Section, frozen=True, kw_only=True):
    """The ODIN gateway.

    Attributes:
        compatibility: ``"0.18"`` presets ``COMPATIBILITY_PRESETS`` when a file is loaded.
        master_key: base64, if there is but one.
        master_keys: the same, several while one replaces another: the first derives the keys that
            servers are given, those derived from the others still count. After loading these are
            the keys, wherever they were given.
        unknown_customers: ``"forbidden"``, or the limits of demo mode.
        reservation_lifetime: how long a Connect counts as usage before a server reports it.
        grid_config: overrides and extends the settings recommended to servers.
    """

    hidden_keys = frozenset({"master_key", "master_keys", "grid_config"})

    compatibility: Annotated[
        Literal["strict", "0.18"], Meta(description='"strict" or "0.18", in quotes')
    ] = "strict"
    master_key: Annotated[str, Meta(description="the master key in base64, in quotes")] = ""
    master_keys: Annotated[
        tuple[str, ...], Meta(description='a list of keys in base64 such as ["new", "old"]')
    ] = ()
    master_key_file: Annotated[Path | None, Meta(description="the path of a file, in quotes")] = (
        None
    )
    token_lifetime: WholeSeconds = 300
    leeway: Annotated[
        int, Meta(ge=0, le=TEN_YEARS, description="a whole number of seconds, 0 or more")
    ] = 60
    require_subject: Switch = True
    require_expiry: Switch = True
    room_match: Annotated[Literal["exact", "prefix"], Meta(description='"exact" or "prefix"')] = (
        "exact"
    )
    report_interval: Seconds = 5.0
    disable_timeout: Seconds = 7.5
    unheard_timeout: Seconds = 300.0
    remove_timeout: Seconds = 600.0
    reservation_lifetime: Seconds = 10.0
    bans_per_customer: Count = 10000
    metrics_allowed: Annotated[
        str, Meta(description='a network such as "10.0.0.0/8", in quotes')
    ] = "0.0.0.0/0"
    unknown_customers: Annotated[
        Literal["forbidden"] | DemoLimits,
        Meta(description='"forbidden" or { max_peers = 25, max_rooms = 5, total_peers = 100 }'),
    ] = "forbidden"
    pools: Pools = Pools()
    customers: Annotated[
        tuple[CustomerConfig, ...], Meta(description="[[gateway.customers]] tables")
    ] = ()
    customer_source: CustomerSource | None = None
    internal: Internal = Internal()
    grid_config: Annotated[dict[str, Any], Meta(description="a [gateway.grid_config] table")] = (
        field(default_factory=dict)
    )

    def __post_init__(self) -> None:
        """Check what the types cannot say.

        Raises:
            ValueError: a value is malformed or does not go with another one.
        """
        try:
            decode_master_keys((self.master_key,) if self.master_key else ())
        except KeyMaterialError:
            raise ValueError("master_key: not base64; write the key in base64") from None
        try:
            decode_master_keys(self.master_keys)
        except KeyMaterialError as error:
            raise ValueError(
                f"master_keys: {error}; write each key once, in base64, the newest first"
            ) from None
        if self.disable_timeout <= self.report_interval:
            raise ValueError(
                f"disable_timeout: {self.disable_timeout:g} is not above report_interval "
                f"({self.report_interval:g}); write a larger number of seconds"
            )
        if self.remove_timeout <= self.disable_timeout:
            raise ValueError(
                f"remove_timeout: {self.remove_timeout:g} is not above disable_timeout "
                f"({self.disable_timeout:g}); write a larger number of seconds"
            )
        try:
            Networks.parse((self.metrics_allowed,))
        except ValueError as error:
            raise ValueError(f"metrics_allowed: {str(error).removeprefix('[0]: ')}") from None
        first: dict[str, int] = {}
        for index, customer in enumerate(self.customers):
            if first.setdefault(customer.id, index) != index:
                raise ValueError(
                    f"customers[{index}].id: customers[{first[customer.id]}] has the same id; "
                    "give each customer its own"
                )

    def decoded_master_keys(self) -> tuple[bytes, ...]:
        """The decoded master keys, the one that derives what servers are given first."""
        return decode_master_keys(self.master_keys)
