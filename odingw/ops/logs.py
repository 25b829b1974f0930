"""Log lines: one for each notable event, for people or as JSON."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, cast

from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
)

_CONTROLS: Final = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
"""What strangers write must not look like a line of its own, nor command a terminal."""

_FIELDS: Final = "odingw_"
"""Prefix of event keys that become members of a JSON line."""


def observer(file: Any, level: str, form: str) -> ILogObserver:
    """Return an observer that writes log lines.

    Args:
        file: where to, a text stream or a ``LogFile``.
        level: the least level that is written: debug, info, warn or error.
        form: ``pretty`` or ``json``.
    """
    predicate = LogLevelFilterPredicate(LogLevel.levelWithName(level))
    write: Any = FileLogObserver(file, _json_line if form == "json" else _pretty_line)
    return cast("ILogObserver", FilteringLogObserver(write, cast("Any", [predicate])))


def _time(event: LogEvent) -> str:
    moment = datetime.fromtimestamp(event.get("log_time", 0.0), UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text(event: LogEvent) -> str:
    text = formatEvent(event).translate(_CONTROLS)
    failure = event.get("log_failure")
    if failure is not None:
        text += f"\n{failure.getTraceback()}"
    return text


def _level(event: LogEvent) -> str:
    level = event.get("log_level")
    return level.name if level is not None else "info"


def _pretty_line(event: LogEvent) -> str | None:
    text = _text(event)
    if not text:
        return None
    return f"{_time(event)} {_level(event):<8} {text}\n"


def _json_line(event: LogEvent) -> str | None:
    text = _text(event)
    if not text:
        return None
    line = {
        "time": _time(event),
        "level": _level(event),
        "logger": event.get("log_namespace", ""),
        "message": text,
    }
    for key, value in event.items():
        if key.startswith(_FIELDS):
            line[key.removeprefix(_FIELDS)] = value
    return json.dumps(line, ensure_ascii=False, default=str) + "\n"


def once(log: Callable[[str], None]) -> Callable[[str], None]:
    """Return a function that logs each text the first time it is given it, up to 1,000 texts."""
    seen: set[str] = set()

    def tell(text: str) -> None:
        if text not in seen and len(seen) < 1000:
            seen.add(text)
            log(text)

    return tell
