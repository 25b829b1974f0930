"""What the executable runs: ``twistd`` and the ``odingw`` command in one.

``odingw twistd …`` is ``twistd …``, and ``odingw run …`` is ``twistd -n --pidfile= odingw …``.
Every other word belongs to the ``odingw`` command. Under the name ``twistd`` it is just that: the
demo looks for it beside the Python that it runs in.
"""

import faulthandler
import fcntl
import os
import signal
import sys
from pathlib import Path


def main() -> None:
    """Run what the first word asks for."""
    # Cleaners of temporary folders pass over a folder that is locked. The descriptor lives as long
    # as the process, and on in the one that goes to the background.
    fcntl.flock(os.open(Path(sys.executable).parent, os.O_RDONLY), fcntl.LOCK_SH)
    # PyInstaller ignores Python's variables. Modules with customer functions are found by this one,
    # after the program's own.
    sys.path += filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    if Path(sys.argv[0]).name == "twistd":
        sys.argv.insert(1, "twistd")
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    if word in {"run", "twistd"}:
        # As odingw/sim/foreground.py has it.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        from twisted.scripts.twistd import run

        faulthandler.enable()
        if word == "run":
            sys.argv[1:2] = ["--nodaemon", "--pidfile=", "odingw"]
        else:
            del sys.argv[1]
        run()  # type: ignore[no-untyped-call]  # Twisted has no types here
    else:
        from odingw.cli.__main__ import main as command

        command()


if __name__ == "__main__":
    main()
