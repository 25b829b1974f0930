"""A Python function as a source of customers."""

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThread

from odingw.config import FunctionReference
from odingw.customers.sources import (
    TIMEOUT,
    OneThread,
    SourceError,
    listed,
    one_line,
    within,
)
from odingw.errors import ConfigError
from odingw.fetch import Clock


class FunctionSource:
    """A Python function without arguments that returns the list.

    An ``async def`` is awaited on the reactor. Any other function runs in a thread; a coroutine or
    Deferred that it returns is awaited on the reactor.

    Args:
        reference: ``package.module:name`` or ``path/file.py:name``.
        clock: for the time limit.
        timeout: seconds that the whole of it may take.
        defer_to_thread: calls a function in a thread.

    Raises:
        ConfigError: there is no such function, or its module cannot be loaded.
    """

    def __init__(
        self,
        reference: str | FunctionReference,
        clock: Clock,
        *,
        timeout: float = TIMEOUT,
        defer_to_thread: Callable[..., Deferred[Any]] = deferToThread,
    ) -> None:
        try:
            if isinstance(reference, str):
                reference = FunctionReference.parse(reference)
            self._function = _function(reference)
        except ValueError as error:
            raise ConfigError(f"gateway.customer_source.function: {error}") from None
        self.name = f"{reference.path or reference.module}:{reference.name}"
        self._clock = clock
        self._timeout = timeout
        self._thread = OneThread(self._function, defer_to_thread)

    def fetch(self) -> Deferred[list[object]]:
        """Call the function, unless an earlier call hangs in its thread."""
        return within(self._timeout, self._clock, Deferred.fromCoroutine(self._fetch()))

    async def _fetch(self) -> list[object]:
        try:
            if inspect.iscoroutinefunction(self._function):
                result = await self._function()
            else:
                result = await self._thread.call()
                if isinstance(result, Awaitable):
                    result = await result
            return listed(result)
        except (SourceError, CancelledError):
            raise
        except (Exception, SystemExit) as error:
            raise SourceError(f"it raised {_raised(error)}") from None


def _function(reference: FunctionReference) -> Callable[[], object]:
    """Load the module of a function.

    Raises:
        ValueError: it cannot be loaded, or has no such function.
    """
    where = str(reference.path or reference.module)
    try:
        if reference.path is not None:
            module = _module_of_file(reference.path)
        else:
            module = importlib.import_module(where)
    except (ImportError, OSError, SyntaxError) as error:
        raise ValueError(f"{where} cannot be loaded: {one_line(error)}") from None
    except (Exception, SystemExit) as error:
        raise ValueError(f"{where} cannot be loaded: it raised {_raised(error)}") from None
    function = getattr(module, reference.name, None)
    if not callable(function):
        raise ValueError(f"{where} has no function {reference.name}")
    return cast("Callable[[], object]", function)


def _module_of_file(path: Path) -> ModuleType:
    name = f"odingw_customers_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle look their module up there.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _raised(error: BaseException) -> str:
    """An exception of foreign code: its kind and its place; its text may hold secrets."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} ({Path(frame.filename).name}, line {frame.lineno})"
