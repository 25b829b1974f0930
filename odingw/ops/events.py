"""Turns what happens in the grid into log lines and counts."""

from typing import Final

from twisted.logger import Logger, LogLevel

from odingw.errors import Refused
from odingw.grid.rooms import RoomId
from odingw.grid.values import (
    Event,
    MoreContested,
    Paused,
    ReportsElsewhere,
    RoomContested,
    ServerAttached,
    ServerDisabled,
    ServerRemoved,
    TasksDropped,
)
from odingw.ops.metrics import Metrics
from odingw.rpc.callers import Caller

_LONGEST: Final = 200
"""Characters of a name that a caller or a server chose."""

_log = Logger("odingw.grid")
_audit = Logger("odingw.audit")


class EventLog:
    """Tells operators.

    Args:
        metrics: counts.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def event(self, event: Event) -> None:
        """Log an event of the grid."""
        match event:
            case ServerAttached(address, version, returned):
                how = "is back" if returned else "has joined"
                _log.info(
                    "server {odingw_server} (version {odingw_version}) {how}",
                    odingw_server=address,
                    odingw_version=version,
                    how=how,
                )
            case ServerDisabled(address, silent):
                _log.warn(
                    "server {odingw_server} is disabled: no report for {silent:.1f} s; "
                    "its rooms may move",
                    odingw_server=address,
                    silent=silent,
                )
            case ServerRemoved(address, tasks):
                self._metrics.tasks("dropped", tasks)
                _log.warn(
                    "server {odingw_server} is forgotten: it has been silent for too long; "
                    "{odingw_tasks} queued tasks are dropped",
                    odingw_server=address,
                    odingw_tasks=tasks,
                )
            case RoomContested(room, keeper, loser):
                _log.warn(
                    "room {odingw_room} is on two servers: {odingw_keeper} keeps it, "
                    "{odingw_loser} is told to close it",
                    odingw_room=_cut_room(room),
                    odingw_keeper=keeper,
                    odingw_loser=loser,
                )
            case MoreContested(address, rooms):
                _log.warn(
                    "{count} more rooms that server {odingw_server} reports are on two servers",
                    odingw_server=address,
                    count=rooms,
                )
            case TasksDropped(address, tasks):
                self._metrics.tasks("dropped", len(tasks))
                for task in tasks:
                    _log.error(
                        "task {odingw_task} for room {odingw_room} is dropped: server "
                        "{odingw_server} failed to take it {times} times",
                        odingw_task=type(task.body).__name__,
                        odingw_room=_cut_room(task.body.id),
                        odingw_server=address,
                        times=task.returned,
                    )
            case ReportsElsewhere(address, version, section):
                _log.warn(
                    "server {odingw_server} (version {odingw_version}) took its settings but will "
                    "not report here: its configuration has {section}, so it is 1.6 or newer, "
                    "which reports elsewhere; servers up to 1.5 work with odingw",
                    odingw_server=address,
                    odingw_version=_cut(version),
                    section=section,
                )
            case Paused(seconds):
                _log.warn(
                    "the gateway stood still for {seconds:.1f} s; "
                    "every server counts as just heard",
                    seconds=seconds,
                )

    def managed(
        self, caller: Caller, method: str, room: str, user: str | None, error: Exception | None
    ) -> None:
        """Write the audit line of a management call."""
        if isinstance(error, Refused):
            outcome = str(error.reason)
            self._metrics.refused(outcome)
        else:
            outcome = "failed" if error else "accepted"
        if error is None:
            self._metrics.tasks("queued")
        room = _cut(room)
        user = None if user is None else _cut(user)
        _audit.emit(
            LogLevel.info,
            "{odingw_method} of room {odingw_room!r}{whom} by key {odingw_kid} "
            "of customer {odingw_customer!r}: {odingw_outcome}",
            odingw_method=method,
            odingw_room=room,
            odingw_user=user,
            odingw_kid=_cut(caller.kid),
            odingw_customer=_cut(caller.customer),
            odingw_outcome=outcome,
            whom=f", user {user!r}," if user is not None else "",
        )


def _cut_room(room: RoomId) -> RoomId:
    namespace, name = room
    return _cut(namespace), _cut(name)


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…"
