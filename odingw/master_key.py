"""Where the master keys come from when the configuration has none."""

import os
import secrets
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Final

from odingw.errors import ConfigError, KeyMaterialError
from odingw.tokens import decode_master_keys, master_key_lines

FILE_NAME: Final = "odingw.masterkey"

_BYTES: Final = 32
_SAMPLE: Final = "762af4c3b25c8e9718f08bd2b16c68a42c8b3cb34c17f558"


def load_or_make(folder: Path) -> tuple[tuple[bytes, ...], bool]:
    """Return the master keys kept in a folder, and whether one was made just now.

    Args:
        folder: where the file ``odingw.masterkey`` is, a key per line; a new one has mode 0600.

    Raises:
        ConfigError: the file cannot be read, or written, or holds no key.
    """
    path = folder / FILE_NAME
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _load(path), False
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot make the master key file: {error.strerror}; "
            "start in a writable folder, or configure gateway.master_key_file"
        ) from None
    key = secrets.token_bytes(_BYTES)
    with os.fdopen(descriptor, "wb") as file:
        file.write(b64encode(key) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return (key,), True


def is_published_sample(key: bytes) -> bool:
    """Tell whether this is the key that the existing gateway's documentation shows to everybody."""
    return sha256(key).hexdigest().startswith(_SAMPLE)


def _load(path: Path) -> tuple[bytes, ...]:
    try:
        # An empty file must not stand for no key.
        return decode_master_keys(master_key_lines(path.read_text("ascii")) or ("",))
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else "it holds no base64 key"
        if isinstance(error, KeyMaterialError):
            what = str(error)
        raise ConfigError(
            f"{path}: cannot use the master key file: {what}; "
            "restore it from a backup, or move it away to begin with a new key"
        ) from None
