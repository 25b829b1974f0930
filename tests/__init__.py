"""Tests of odingw."""

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # What a shell starts in the background does not listen to Ctrl-C, nor do its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
