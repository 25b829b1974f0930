"""``twistd`` in the foreground, which Ctrl-C ends at whatever moment it comes.

Python makes an exception of SIGINT, and what looks for ``twistd``'s plugins logs any exception and
goes on. So it ends the process as it ends most programs, until the gateway takes it over.
"""

import signal
import sys

signal.signal(signal.SIGINT, signal.SIG_DFL)

from twisted.scripts.twistd import run  # noqa: E402  -- see above

if __name__ == "__main__":
    sys.argv[0] = "twistd"
    run()
