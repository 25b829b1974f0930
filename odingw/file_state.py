"""Telling cheaply whether a file has changed."""

from pathlib import Path
from typing import TypeAlias

FileState: TypeAlias = tuple[int, int, int] | None
"""Modification time in ns, size in bytes, and inode; None: there is no such file."""


def file_state(path: Path) -> FileState:
    """Return what changes when a file does; symbolic links are followed."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        # A ValueError is a null byte in the path.
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
