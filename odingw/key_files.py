"""What a start looks at about keys: which ones count, and who else may come by their files."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import attrs

from odingw.config import Config, state_folder
from odingw.escapes import in_text
from odingw.listeners import Entry
from odingw.master_key import FILE_NAME, MasterKeys, find
from odingw.options import Options
from odingw.secret_files import UnsafeFileError, check_writers, warnings
from odingw.stores import check_master_keys


def check_keys(config: Config, options: Options, entries: Iterable[Entry]) -> MasterKeys:
    """Find the master keys that a gateway would start with; nothing is made.

    Args:
        config: the configuration that the options ask for.
        options: where it comes from.
        entries: what is listened on.

    Raises:
        ConfigError: it must not start with them.
    """
    folder = state_folder()
    file = folder / FILE_NAME
    found = find(config, options.name, folder, option=options["masterkey"] is not None)
    if not options["new-masterkey"]:
        check_master_keys(config.state, found.keys, file)
    more = _of_files(config, options.name, file, entries)
    return attrs.evolve(found, warnings=(*found.warnings, *more))


def _of_files(
    config: Config, source: str, master_key: Path, entries: Iterable[Entry]
) -> Iterator[str]:
    """Yield what is wrong with files and yet no reason not to start; what is, was refused."""
    gateway, turn = config.gateway, config.turn
    found: list[Path | None] = []
    if source and _holds_secrets(config):
        found.append(Path(source))
    found.append(gateway.master_key_file if gateway.master_keys else master_key)
    found += [turn.config, turn.secret_keys_file] if turn is not None else []
    found += [entry.listener.tls.files.private_key for entry in entries if entry.listener.tls]
    for path in dict.fromkeys(path for path in found if path is not None):
        yield from warnings(path)
    customers = gateway.customer_source
    if customers is not None:
        yield from _customers(customers.file)
        yield from _customers(customers.function.path if customers.function else None)


def _customers(path: Path | None) -> Iterator[str]:
    """Yield a line if others can write a file that says who is let in."""
    try:
        if path is not None:
            check_writers(path.stat(), any_owner=True)
    except UnsafeFileError as error:
        yield f"gateway.customer_source: {in_text(str(path))}: {error}"
    except OSError:
        # The source says so when it reads it.
        return


def _holds_secrets(config: Config) -> bool:
    """Whether a secret stands in the configuration itself, as far as can be told afterwards."""
    gateway, turn, customers = config.gateway, config.turn, config.gateway.customer_source
    return bool(
        (gateway.master_keys and gateway.master_key_file is None)
        or gateway.internal.users
        or config.admin.users
        or config.state.address.password
        or (customers and customers.url and urlsplit(customers.url).password)
        or (turn and turn.forced_password and turn.config is None)
        or (turn and turn.secret_keys and turn.secret_keys_file is None)
    )
