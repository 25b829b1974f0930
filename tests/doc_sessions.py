"""Terminals as the documentation has them: what is typed into each, and what must then be seen."""

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Self

from msgspec import Struct

PATIENCE: Final = 60.0
"""Seconds that a command may take to end, or to show what it must."""

_MARK: Final = "the command ended with status"
_BLOCK: Final = re.compile(
    r"^(?P<indent> *)\.\. code-block:: (?P<language>\S+)\n(?P<options>(?: +:[a-z-]+:.*\n)*)\n"
    r"(?P<text>(?:(?P=indent) {3,}.*\n|\n)+)",
    re.MULTILINE,
)


class Block(Struct, frozen=True):
    """A code block of a page.

    Attributes:
        language: as the page names it.
        caption: empty: it has none.
        text: without its indentation.
        line: where it begins in the page, from 1.
    """

    language: str
    caption: str
    text: str
    line: int


class Step(Struct, frozen=True):
    """A command, and the lines that it must show, in this order; ``…`` stands for any text.

    Attributes:
        command: empty: only wait for the lines.
        lines: without leading and trailing spaces.
    """

    command: str
    lines: tuple[str, ...]


def blocks(page: str) -> Iterator[Block]:
    """Yield the code blocks of a page."""
    for found in _BLOCK.finditer(page):
        lines = found["text"].rstrip("\n").split("\n")
        indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
        caption = re.search(r":caption: (.*)", found["options"])
        yield Block(
            found["language"],
            caption[1].strip() if caption else "",
            "\n".join(line[indent:] for line in lines) + "\n",
            page.count("\n", 0, found.start()) + 1,
        )


def steps(session: str) -> list[Step]:
    """Take a shell session apart.

    Commands begin with ``$``, may go on behind a backslash at the end of a line, and may have a
    here document that ends with ``END``. Other lines are what the command before them shows.
    """
    found: list[Step] = []
    lines = iter(session.splitlines())
    for line in lines:
        if not line.startswith("$ "):
            if line.strip():
                last = found.pop() if found else Step("", ())
                found.append(Step(last.command, (*last.lines, line.strip())))
            continue
        command = line.removeprefix("$ ")
        while command.endswith("\\"):
            command += "\n" + next(lines)
        if "<<'END'" in command:
            for more in lines:
                command += "\n" + more
                if more == "END":
                    break
        found.append(Step(command, ()))
    return found


def pattern(line: str) -> "re.Pattern[str]":
    """What a shown line matches: ``…`` any text, a space any number of spaces."""
    words = [re.escape(word).replace("…", ".*") for word in line.split()]
    return re.compile(r"\s*".join(words))


class Terminal:
    """A shell.

    Args:
        folder: where it begins.
        environment: its variables.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._lines: list[str] = []
        self._heard = threading.Condition()
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            with self._heard:
                self._lines.append(line)
                self._heard.notify_all()

    @property
    def screen(self) -> str:
        """All that it has shown."""
        with self._heard:
            return "".join(self._lines)

    def carry_out(self, step: Step, *, lasting: bool) -> None:
        """Type a command and look at what it shows.

        Args:
            step: the command and the lines.
            lasting: whether it goes on: then the lines are waited for, not the command's end.

        Raises:
            AssertionError: it failed, or does not show them.
        """
        begin = len(self._lines) if step.command else 0
        if step.command:
            end = "" if lasting else f"\nprintf '\\n%s %s\\n' '{_MARK}' $?"
            self._type(f"{step.command}{end}\n")
        wanted = list(step.lines)
        if step.command and not lasting:
            wanted.append(f"{_MARK} 0")
        self._wait(begin, wanted, step)

    def _type(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def _wait(self, begin: int, wanted: Sequence[str], step: Step) -> None:
        deadline = time.monotonic() + PATIENCE
        at = begin
        ends = wanted[-1:] == [f"{_MARK} 0"]
        with self._heard:
            for line in wanted:
                looks_like = pattern(line)
                while True:
                    if at < len(self._lines):
                        shown = self._lines[at]
                        at += 1
                        if looks_like.search(shown):
                            break
                        if not (ends and shown.startswith(_MARK)):
                            continue
                    elif self._heard.wait(deadline - time.monotonic()):
                        continue
                    shown = "".join(self._lines[begin:])
                    raise AssertionError(f"{step.command}\ndid not show {line!r} but:\n{shown}")

    def close(self) -> None:
        """End it and all that runs in it."""
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(PATIENCE)
        finally:
            self._reader.join(PATIENCE)
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()

    def __enter__(self) -> Self:
        """Use it for a while."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.close()
