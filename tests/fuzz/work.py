"""What an input makes a parser do: which lines, how many of them, and how much memory it takes.

Work is counted and not timed, so that it is the same on every machine.
"""

import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, TypeAlias

Way: TypeAlias = tuple[str, int, int]
"""From one line of a file to another."""


def count_lines(call: Callable[[], object]) -> int:
    """Return how many lines of Python a call runs, those of the libraries included."""
    count = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def ways(call: Callable[[], object], folder: Path) -> set[Way]:
    """Return the ways that a call takes through the modules of a folder."""
    found: set[Way] = set()
    inside = str(folder)

    def begin(frame: FrameType, event: str, arg: object) -> Any:
        file, last = frame.f_code.co_filename, frame.f_lineno
        if not file.startswith(inside):
            return None

        def trace(frame: FrameType, event: str, arg: object) -> Any:
            nonlocal last
            if event == "line":
                found.add((file, last, frame.f_lineno))
                last = frame.f_lineno
            return trace

        return trace

    before = sys.gettrace()
    sys.settrace(begin)
    try:
        call()
    finally:
        sys.settrace(before)
    return found


def peak_of_memory(call: Callable[[], object]) -> int:
    """Return how many bytes a call holds at most, beyond what was there before."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
