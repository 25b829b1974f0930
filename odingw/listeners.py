"""What to listen on, and what is served there."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs

from odingw.config import Config
from odingw.errors import ConfigError
from odingw.web.endpoints import Listener, listener
from odingw.web.tls import CertificateFiles


@attrs.frozen
class Origin:
    """Where endpoint strings come from, for messages and relative paths.

    Attributes:
        name: of the configuration file; empty: there is none.
        folder: of the configuration file, to which its relative paths are relative.
        options: those of ``listen``, ``internal``, ``admin``, ``certificate`` and ``privatekey``
            that the command line gives.
    """

    name: str
    folder: Path
    options: frozenset[str]


@attrs.frozen
class Entry:
    """An endpoint and its roles: ``public``, ``internal``, ``admin``."""

    listener: Listener
    roles: set[str]


def listeners(config: Config, reactor: Any, origin: Origin) -> dict[str, Entry]:
    """Return what to listen on, by endpoint string; nothing is opened yet.

    Raises:
        ConfigError: an endpoint string, or a file that it names, cannot be used; or a certificate
            is given that no endpoint uses.
    """
    listen = config.listen
    files = CertificateFiles(private_key=config.tls.private_key, certificate=config.tls.certificate)
    entries: dict[str, Entry] = {}
    public_roles = {"public"} if listen.internal else {"public", "internal"}
    for key, descriptions, option, roles in (
        ("public", listen.public, "listen", public_roles),
        ("internal", listen.internal, "internal", {"internal"}),
        ("admin", listen.admin, "admin", {"admin"}),
    ):
        by_option = option in origin.options
        for index, description in enumerate(descriptions):
            if description not in entries:
                try:
                    found = listener(
                        reactor,
                        description,
                        tls=files,
                        reuse_port=listen.reuse_port,
                        folder=Path() if by_option else origin.folder,
                    )
                except ConfigError as error:
                    where = f"--{option}" if by_option else f"listen.{key}[{index}]"
                    prefix = f"{origin.name}: " if origin.name and not by_option else ""
                    raise ConfigError(f"{prefix}{where}: {error}") from None
                entries[description] = Entry(found, set())
            entries[description].roles.update(roles)
    _check_used(files, entries.values(), origin)
    return entries


def _check_used(files: CertificateFiles, entries: Iterable[Entry], origin: Origin) -> None:
    given = [name for name in ("certificate", "privatekey") if name in origin.options]
    used = any(
        entry.listener.tls is not None and entry.listener.tls.files.private_key == files.private_key
        for entry in entries
    )
    if given and not used:
        raise ConfigError(
            f"--{given[0]}: no endpoint uses it, so everything would be served without TLS; add "
            "--ssl, or an endpoint such as --listen ssl:443"
        )
