"""What to listen on, and what is served there."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs

from odingw.config import Config
from odingw.config.place import DEFAULT_INTERNAL, INTERNAL_PORT, Place, internal_place
from odingw.errors import ConfigError
from odingw.web.address import parse_address
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
    place = internal_place(config)
    entries: dict[str, Entry] = {}
    for key, descriptions, option, roles in (
        ("public", listen.public, "listen", _public_roles(place)),
        ("admin", listen.admin, "admin", {"admin"}),
        ("internal", _own_endpoints(config, place), "internal", {"internal"}),
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
                        header_timeout=config.limits.header_timeout,
                    )
                    if place is Place.DEFAULT and key != "internal":
                        _keep_clear(found)
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


def _public_roles(place: Place) -> set[str]:
    return {"public", "internal"} if place is Place.PUBLIC else {"public"}


def _own_endpoints(config: Config, place: Place) -> tuple[str, ...]:
    return (DEFAULT_INTERNAL,) if place is Place.DEFAULT else config.listen.internal


def _keep_clear(found: Listener) -> None:
    """Refuse an endpoint where that of ``/internal`` is by default: nobody has consented to share.

    With ``listen.reuse_port`` the system would let both listen, and choose.

    Raises:
        ConfigError: it is in the way.
    """
    interface, port = found.binding or ("", 0)
    address = parse_address(interface)
    # A name may be any address.
    apart = address is not None and not address.is_unspecified and str(address) != "127.0.0.1"
    if port == INTERNAL_PORT and not apart:
        raise ConfigError(
            f"/internal is served on {DEFAULT_INTERNAL}, as nothing says where; take another port "
            "here, or name another endpoint for it in listen.internal"
        )
