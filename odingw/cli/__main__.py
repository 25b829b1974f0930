"""``python -m odingw.cli`` is ``odingw``."""

import os
import signal

# What is imported takes its time, and there is nothing yet that Ctrl-C could leave undone.
signal.signal(signal.SIGINT, lambda *_: os._exit(130))

from odingw.cli.main import main  # noqa: E402  -- see above

if __name__ == "__main__":
    main()
