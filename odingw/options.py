"""The options of ``twistd odingw``, and the configuration that they ask for."""

import sys
from pathlib import Path

from twisted.python import usage

from odingw import __version__
from odingw.config import Config
from odingw.config import Options as ConfigOptions
from odingw.config import load as load_config
from odingw.listeners import Origin


class Options(usage.Options):
    """Options of ``twistd odingw``."""

    synopsis = "[options]"
    optFlags = [  # noqa: RUF012, N815  -- Twisted's name and form
        ["ssl", None, "Listen with TLS, with the certificate of [tls]"],
        ["check", None, "Check the configuration and exit"],
    ]
    optParameters = [  # noqa: RUF012, N815  -- likewise
        ["config", "c", None, "Configuration file (TOML)"],
        ["host", None, None, "Address to listen on, instead of listen.public"],
        ["port", None, None, "Port to listen on, instead of listen.public"],
        ["certificate", None, None, "PEM file of the certificate chain, for --ssl"],
        ["privatekey", None, None, "PEM file of the private key, for --ssl"],
        ["masterkey", None, None, "Master key, base64 (visible to other users of this host)"],
        ["state", None, None, "Where state is kept, a URL"],
        ["turn-config", None, None, "TurnRest configuration file (JSON), instead of [turn]"],
    ]
    longdesc = "ODIN voice gateway and TURN REST server. See etc/odingw.toml for all settings."

    def __init__(self) -> None:
        super().__init__()
        for name in ("listen", "internal", "admin"):
            self[name] = []

    def opt_listen(self, endpoint: str) -> None:
        """Public endpoint, instead of listen.public; may be repeated."""
        self["listen"].append(endpoint)

    def opt_internal(self, endpoint: str) -> None:
        """Endpoint for ODIN servers, instead of listen.internal; may be repeated."""
        self["internal"].append(endpoint)

    def opt_admin(self, endpoint: str) -> None:
        """Admin endpoint, instead of listen.admin; may be repeated."""
        self["admin"].append(endpoint)

    def postOptions(self) -> None:  # noqa: N802  -- Twisted's name
        """Keep what paths mean now: twistd may go to another folder, and SIGHUP comes later."""
        for name in ("config", "turn-config"):
            if self[name]:
                self[name] = str(Path(self[name]).absolute())

    def opt_version(self) -> None:
        """Print the version and exit."""
        sys.stdout.write(f"odingw {__version__}\n")
        raise SystemExit(0)

    @property
    def name(self) -> str:
        """The name of the configuration file, for messages."""
        return str(self["config"] or "")

    def origin(self) -> Origin:
        """Return where endpoint strings come from."""
        return Origin(
            self.name,
            Path(self["config"] or "").parent,
            frozenset(name for name in ("listen", "internal", "admin") if self[name]),
        )

    def load(self) -> Config:
        """Load the configuration that the options ask for.

        Raises:
            ConfigError: it cannot be used.
        """
        path = self["config"]
        return load_config(
            Path(path) if path else None,
            ConfigOptions(
                host=self["host"],
                port=self["port"],
                ssl=bool(self["ssl"]),
                certificate=self["certificate"],
                privatekey=self["privatekey"],
                masterkey=self["masterkey"],
                listen=tuple(self["listen"]),
                internal=tuple(self["internal"]),
                admin=tuple(self["admin"]),
                state=self["state"],
                turn_config=self["turn-config"],
            ),
        )
