"""Runs a module as a program, and sends it a signal at its so-and-so-many-th call of a function.

Usage: python tests/interrupting.py NUMBER CALLS AFTER MODULE [ARGUMENT…]: calls are counted once
AFTER is imported. Wherever a program is at such a moment, it is there each time.
"""

import os
import runpy
import sys
from pathlib import Path
from types import FrameType


def main() -> None:
    number, wanted, after, module, *arguments = sys.argv[1:]
    left = int(wanted)

    def profile(_frame: FrameType, event: str, _what: object) -> None:
        nonlocal left
        if event != "call" or (left == int(wanted) and after not in sys.modules):
            return
        left -= 1
        if not left:
            sys.setprofile(None)
            os.kill(os.getpid(), int(number))

    sys.argv = [module, *arguments]
    # Not the folder of this file.
    sys.path[0] = str(Path.cwd())
    sys.setprofile(profile)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
