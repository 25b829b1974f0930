"""The place of a file that SQLite has open: whether it is still there, who else uses it."""

import fcntl
import os
import time
from pathlib import Path
from typing import Final

SIDE_FILES: Final = ("-wal", "-shm", "-journal")
"""How the names of the files end that SQLite makes beside a database."""

_LOCKED: Final = (0x40000000, 512)
"""Where SQLite locks a file, and how many bytes (https://sqlite.org/fileformat2.html, 1.3.17)."""

_HEADER: Final = 100
"""Bytes at the beginning of a database, or of a write-ahead file, that tell it from others."""


class Watch:
    """Tells whether an open file is the one at its path, and as this process left it.

    It holds a descriptor of its own, which must be closed after SQLite's: whoever closes a file
    loses all locks that the process has on it.

    Args:
        path: of the file.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.written()

    def written(self) -> None:
        """Remember the file as it is now."""
        self._size = os.fstat(self._descriptor).st_size
        self._header = os.pread(self._descriptor, _HEADER, 0)

    def lost(self) -> str:
        """Return what others have done to it, as the end of a sentence; empty: nothing.

        What is overwritten in place is found by its beginning and its size.
        """
        try:
            there = self._path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return "was deleted or moved"
        except OSError as error:
            return f"cannot be looked at ({error.strerror})"
        own = os.fstat(self._descriptor)
        if not os.path.samestat(own, there):
            return "was replaced by another file"
        if own.st_size < self._size or os.pread(self._descriptor, _HEADER, 0) != self._header:
            return "was overwritten"
        return ""

    def is_replaced(self) -> bool:
        """Tell whether another file is at the path."""
        try:
            there = self._path.stat()
        except OSError:
            return False
        return not os.path.samestat(os.fstat(self._descriptor), there)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)


def is_used(path: Path) -> bool:
    """Tell whether another process has a database locked, as a gateway has its journal.

    Not to be called in a process that has the same file open: it would lose its own locks.

    Raises:
        OSError: the file cannot be opened.
    """
    if not path.is_file():
        return False
    begin, size = _LOCKED
    with path.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, size, begin)
        except (BlockingIOError, PermissionError):
            return True
    return False


def move_aside(path: Path, why: str) -> Path | None:
    """Rename a database and the files beside it.

    Args:
        path: the database's.
        why: a word for the new name, ``PATH.WHY-TIME``.

    Returns:
        The new name; None: nothing was there.

    Raises:
        OSError: a file cannot be renamed.
    """
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    target = path.with_name(f"{path.name}.{why}-{stamp}")
    number = 1
    while any(Path(f"{target}{end}").exists() for end in ("", *SIDE_FILES)):
        number += 1
        target = path.with_name(f"{path.name}.{why}-{stamp}-{number}")
    found = False
    for end in ("", *SIDE_FILES):
        try:
            Path(f"{path}{end}").rename(f"{target}{end}")
        except (FileNotFoundError, NotADirectoryError):
            continue
        found = True
    return target if found else None
