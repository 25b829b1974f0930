"""Log lines: one for each notable event, for people or as JSON."""

import json
import re
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
    PredicateResult,
    formatEvent,
)
from twisted.python.failure import Failure

from odingw.escapes import in_json, in_text

_QUIET: Final = 10.0
"""Seconds between two lines that say that there are no descriptors left."""

_LONGEST: Final = 800
"""Bytes of a line's text, and of an exception's: strangers decide what stands in some. With quotes
doubled and the rest of a JSON line it is below 2 kB."""

_LONGEST_FIELD: Final = 100
"""Bytes of a text in another member of a JSON line."""

_QUERY: Final = re.compile(r"\?[^\s?]\S*")
"""The query of a URI, where tokens stand, in a text that is not ours."""

_FIELDS: Final = "odingw_"
"""Prefix of event keys that become members of a JSON line."""


def observer(file: Any, level: str, form: str) -> ILogObserver:
    """Return an observer that writes log lines.

    Args:
        file: where to, a text stream or a ``LogFile``.
        level: the least level that is written: debug, info, warn or error.
        form: ``pretty`` or ``json``.
    """
    predicates: Any = [Seldom(), LogLevelFilterPredicate(LogLevel.levelWithName(level))]
    write: Any = FileLogObserver(file, _json_line if form == "json" else _pretty_line)
    return cast("ILogObserver", FilteringLogObserver(write, predicates))


class Seldom:
    """Lets through now and then what Twisted says of each connection it has no descriptor for.

    Strangers cause these lines, and by thousands. Operators must see one at every level.
    """

    def __init__(self) -> None:
        self._last = -_QUIET

    def __call__(self, event: LogEvent) -> Any:
        """Tell whether an event is logged, or left to the next predicate."""
        if not event.get("log_namespace", "").startswith("twisted.internet.tcp"):
            return PredicateResult.maybe
        text = event.get("log_format") or ""
        if "EMFILE" not in text:
            return PredicateResult.maybe
        now = event.get("log_time", 0.0)
        if not text.startswith("EMFILE encountered") or abs(now - self._last) < _QUIET:
            return PredicateResult.no
        self._last = now
        return PredicateResult.yes


def _time(event: LogEvent) -> str:
    moment = datetime.fromtimestamp(event.get("log_time", 0.0), UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _cut(text: str, longest: int = _LONGEST) -> str:
    """Return a text that is no longer than so many bytes, but for the remark that it was."""
    data = text.encode(errors="replace")
    if len(data) <= longest:
        return text
    return f"{data[:longest].decode(errors='ignore')}… ({len(data) - longest} bytes more)"


def _text(event: LogEvent) -> str:
    """Return what a line says. What libraries say may hold whatever a stranger sent them."""
    failure = event.get("log_failure")
    if failure is None and event.get("isError"):
        # Twisted's older way to log an error, whose text would be the traceback too.
        failure = event["failure"]
        text = event.get("why") or "Unhandled Error"
    else:
        text = formatEvent(event)
    if not event.get("log_namespace", "").startswith("odingw"):
        text = _QUERY.sub("?…", text)
    text = _cut(in_text(text))
    if failure is not None:
        text += "\n" + in_text(_traceback(failure), keep="\n")
    return text


def _traceback(failure: Failure) -> str:
    """Return all frames of a traceback, and what the exception says without what strangers do."""
    text, said = failure.getTraceback(), failure.getErrorMessage()
    if said:
        text = text.replace(said, _cut(in_text(_QUERY.sub("?…", said))))
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
            told = _cut(value, _LONGEST_FIELD) if isinstance(value, str) else value
            line[key.removeprefix(_FIELDS)] = told
    return in_json(json.dumps(line, ensure_ascii=False, default=str)) + "\n"


def seldom(
    log: Callable[[str], None], now: Callable[[], float], pause: float = 60.0
) -> Callable[[str], None]:
    """Return a function that logs what it is given, and then nothing for so many seconds."""
    last: float | None = None

    def tell(text: str) -> None:
        nonlocal last
        if last is None or now() - last >= pause:
            last = now()
            log(text)

    return tell


def once(log: Callable[[str], None]) -> Callable[[str], None]:
    """Return a function that logs each text the first time it is given it, up to 1,000 texts."""
    seen: set[str] = set()

    def tell(text: str) -> None:
        if text not in seen and len(seen) < 1000:
            seen.add(text)
            log(text)

    return tell
