"""Files that hold secrets: read only where nobody else can have written them.

Whoever can write a key file chooses the key, and its owner can always do that: such a file is
refused. That others can read it, or replace it by way of a folder, is told as a warning.

A group may write if nobody else is in it, as far as this system knows: root's, one named like the
owner or like who runs this and without other members, and one without a name that this process is
in, which volumes of containers have. Links are followed, as those volumes and ACME clients have
them. A pipe is judged by its mode, and a device not at all.
"""

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from odingw.documents import unmarked
from odingw.escapes import in_text
from odingw.files import read_file

_ROOT: Final = 0
_ALL_IDS: Final = 2**32 - 1


class UnsafeFileError(Exception):
    """Others can write the file; the text, without its name, says who and what to do."""


def read_secret(path: Path, *, any_owner: bool = False) -> bytes:
    """Return what a file holds, without a byte order mark.

    Args:
        path: where it is.
        any_owner: whoever owns it is trusted with it: whoever deploys writes the configuration.

    Raises:
        UnsafeFileError: others can write it, or own it.
        OSError: it cannot be read.
        ValueError: this cannot be a file's name.
    """
    return unmarked(read_file(path, check=partial(check_writers, any_owner=any_owner)))


def check_writers(status: os.stat_result, *, any_owner: bool = False) -> None:
    """Refuse what others can write, or own, by the status of the open file.

    Raises:
        UnsafeFileError: they can.
    """
    if stat.S_ISCHR(status.st_mode):
        return
    who = _who_can_write(status)
    if who:
        raise UnsafeFileError(
            f"{who} can write it (mode {stat.S_IMODE(status.st_mode):04o}); make sure of what it "
            "holds, then chmod go-w it"
        )
    if any_owner or stat.S_ISFIFO(status.st_mode):
        return
    if _is_foreign(status.st_uid) and not _is_hidden(status.st_uid):
        me = _user(os.geteuid())
        raise UnsafeFileError(
            f"it belongs to {_user(status.st_uid)}, and {me} reads it; make sure of what it holds, "
            f"then chown it to {me}, or run this as its owner"
        )


def warnings(path: Path) -> Iterator[str]:
    """Yield a line for each way in which others may come by a secret file, or replace it.

    A file that is not there, or cannot be looked at, gives none: whoever reads it says so.
    """
    try:
        status = path.stat()
        real = path.resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        return
    if not stat.S_ISREG(status.st_mode):
        return
    shown = in_text(str(path))
    if _is_foreign(status.st_uid):
        yield f"{shown}: it belongs to {_user(status.st_uid)}, who can change it"
    if status.st_mode & stat.S_IROTH and _is_reachable(real):
        yield (
            f"{shown}: everybody on this host can read it (mode "
            f"{stat.S_IMODE(status.st_mode):04o}); chmod o= it"
        )
    if status.st_mode & stat.S_IWGRP and status.st_gid != _ROOT and _is_nameless(status.st_gid):
        yield f"{shown}: whoever is in the group {status.st_gid} can write it"
    absolute = Path(os.path.abspath(path))  # noqa: PTH100  -- links are not to be followed
    for folder in sorted({*absolute.parents, *real.parents}):
        who = _who_can_replace(folder, status.st_uid)
        if who:
            yield f"{shown}: {who} can replace it, by way of the folder {in_text(str(folder))}"


def _who_can_replace(folder: Path, owner: int) -> str:
    """Return who, beside a file's owner, can rename what is in a folder; empty: nobody else."""
    try:
        status = folder.stat()
    except OSError:
        return ""
    if _is_foreign(status.st_uid) and status.st_uid != owner and not _is_hidden(status.st_uid):
        return _user(status.st_uid)
    # In a sticky folder only owners can rename.
    return "" if status.st_mode & stat.S_ISVTX else _who_can_write(status)


def _who_can_write(status: os.stat_result) -> str:
    """Return who can write by the mode, beside owner, root and who runs this; empty: nobody."""
    if status.st_mode & stat.S_IWOTH:
        return "everybody on this host"
    if status.st_mode & stat.S_IWGRP and not _is_ours(status):
        return f"the group {_group(status.st_gid)}"
    return ""


def _is_reachable(real: Path) -> bool:
    """Whether everybody may enter all folders on the way."""
    try:
        return all(folder.stat().st_mode & stat.S_IXOTH for folder in real.parents)
    except OSError:
        return False


def _is_foreign(uid: int) -> bool:
    return uid not in (_ROOT, os.geteuid())


def _is_hidden(uid: int) -> bool:
    """Whether this stands for all users whom a container does not know (user_namespaces(7))."""
    try:
        mapped = Path("/proc/self/uid_map").read_text("ascii").split()
        overflow = int(Path("/proc/sys/kernel/overflowuid").read_text("ascii"))
    except (OSError, ValueError):
        return False
    return uid == overflow and mapped[2:] != [str(_ALL_IDS)]


def _is_ours(status: os.stat_result) -> bool:
    """Whether nobody is known to be in a file's group but its owner, root, and who runs this."""
    if status.st_gid == _ROOT:
        return True
    if _is_nameless(status.st_gid):
        return status.st_gid in {os.getegid(), *os.getgroups()}
    group = grp.getgrgid(status.st_gid)
    own = {_user(status.st_uid), _user(os.geteuid())}
    return group.gr_name in own and own | {_user(_ROOT)} >= set(group.gr_mem)


def _is_nameless(gid: int) -> bool:
    return _group(gid) == str(gid)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
