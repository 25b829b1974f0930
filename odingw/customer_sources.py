"""Where lists of customers come from while the gateway runs: a URL, a file or a Python function.

What they yield is untrusted; all that is checked here is that it is a list. Error texts are for the
log: they name no credentials, no query and nothing that was received.
"""

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Protocol, TypeVar, cast

import msgspec
from hyperlink import DecodedURL
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IResponse

from odingw.config import FunctionReference
from odingw.errors import ConfigError, OdingwError

T = TypeVar("T")

TIMEOUT: Final = 30.0
MAX_BYTES: Final = 16 * 1024 * 1024
MAX_REDIRECTS: Final = 3
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_LONGEST_CAUSE: Final = 200


class SourceError(OdingwError):
    """A list of customers could not be had; the text is one line without secrets."""


class Timer(Protocol):
    """A call that will be made."""

    def active(self) -> bool:
        """Whether it is still to come."""

    def cancel(self) -> None:
        """Give it up."""


class Clock(Protocol):
    """The part of ``IReactorTime`` that is needed; a zope interface is no type to a checker."""

    def seconds(self) -> float:
        """Return the time."""

    def callLater(  # noqa: N802  # Twisted's name
        self, delay: float, call: Callable[..., object]
    ) -> Timer:
        """Call after so many seconds."""


class Source(Protocol):
    """Something that has a list of customers."""

    @property
    def name(self) -> str:
        """What the log calls it; no secrets."""

    def fetch(self) -> Deferred[list[object]]:
        """Get the list. It may fail with anything, a `SourceError` preferably."""


def within(seconds: float, clock: Clock, deferred: Deferred[T]) -> Deferred[T]:
    """Bound the time that something takes.

    `Deferred.addTimeout` waits until what it cancelled has ended; this does not, since that may be a
    coroutine that catches the cancellation and goes on.

    Returns:
        The same outcome, or a `SourceError` after that time.
    """

    def give_up() -> None:
        outcome.errback(SourceError(f"no answer within {seconds:g} s"))
        deferred.cancel()

    def cancel(_: Deferred[T]) -> None:
        timer.cancel()
        deferred.cancel()

    def settle(result: T | Failure) -> None:
        if timer.active():
            timer.cancel()
        if not outcome.called:
            outcome.callback(result)

    outcome: Deferred[T] = Deferred(cancel)
    timer = clock.callLater(seconds, give_up)
    deferred.addBoth(settle)
    return outcome


class FileSource:
    """A file of JSON.

    Args:
        path: the file.
        defer_to_thread: calls a function in a thread; a file system may hang.
        max_bytes: the largest file that is read.
    """

    def __init__(
        self,
        path: Path,
        *,
        defer_to_thread: Callable[..., Deferred[Any]] = deferToThread,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._path = path
        self._defer_to_thread = defer_to_thread
        self._max_bytes = max_bytes

    @property
    def name(self) -> str:
        """The path."""
        return str(self._path)

    def fetch(self) -> Deferred[list[object]]:
        """Read the file."""
        fetched: Deferred[list[object]] = self._defer_to_thread(self._read)
        return fetched

    def _read(self) -> list[object]:
        try:
            with self._path.open("rb") as file:
                data = file.read(self._max_bytes + 1)
        except OSError as error:
            raise SourceError(error.strerror or type(error).__name__) from None
        if len(data) > self._max_bytes:
            raise SourceError(f"it is larger than {self._max_bytes} bytes")
        return _decoded(data)


class UrlSource:
    """A URL that answers GET with JSON.

    Redirects are followed on the same origin only, so credentials in the URL go nowhere else.

    Args:
        url: an http or https URL; a user and password in it are sent as HTTP Basic.
        client: the HTTP client.
        clock: for the time limit.
        timeout: seconds that the whole of it may take.
        max_bytes: the longest body that is read.

    Raises:
        ConfigError: it is not a URL.
    """

    def __init__(
        self,
        url: str,
        client: HTTPClient,
        clock: Clock,
        *,
        timeout: float = TIMEOUT,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        try:
            parsed = DecodedURL.from_text(url)
        except ValueError:
            raise ConfigError("gateway.customer_source.url: not a URL") from None
        self._auth = (parsed.user, "".join(parsed.userinfo[1:])) if parsed.userinfo else None
        self._url = _without_user(parsed).replace(fragment="")
        self._client = client
        self._clock = clock
        self._timeout = timeout
        self._max_bytes = max_bytes

    @property
    def name(self) -> str:
        """The URL without credentials, query and fragment."""
        return self._url.replace(query=()).to_text()

    def fetch(self) -> Deferred[list[object]]:
        """Get the URL."""
        return within(self._timeout, self._clock, Deferred.fromCoroutine(self._fetch()))

    async def _fetch(self) -> list[object]:
        url = self._url
        for _ in range(MAX_REDIRECTS + 1):
            try:
                response = await self._client.get(
                    url,
                    auth=self._auth,
                    headers=Headers({"Accept": ["application/json"]}),
                    allow_redirects=False,
                    unbuffered=True,
                )
                body = _Body(self._max_bytes)
                response.deliverBody(body)
                if response.code == 200:
                    return _decoded(await body.received)
                body.drop()
            except (OdingwError, CancelledError):
                raise
            except Exception as error:
                raise SourceError(_network_cause(error)) from None
            if response.code not in _REDIRECTS:
                raise SourceError(f"HTTP status {response.code}")
            url = _redirected(url, response)
        raise SourceError("too many redirects")


class _Body(TwistedProtocol):
    """Collects a body that is not too long.

    Attributes:
        received: fires with the body.
    """

    def __init__(self, max_bytes: int) -> None:
        self.received: Deferred[bytes] = Deferred(lambda _: self.drop())
        self._max_bytes = max_bytes
        self._data = bytearray()

    def drop(self) -> None:
        """Close the connection: no more is wanted."""
        if self.transport is not None:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:  # noqa: N802  # Twisted's name
        """Take a piece."""
        if self.received.called:
            return
        self._data += data
        if len(self._data) > self._max_bytes:
            self.received.errback(SourceError(f"it is larger than {self._max_bytes} bytes"))
            self.drop()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802  # likewise
        """Take the end."""
        if self.received.called:
            return
        # Without a length, a body that was cut off looks like a whole one; as JSON it does not.
        if reason.check(ResponseDone, PotentialDataLoss):
            self.received.callback(bytes(self._data))
        else:
            self.received.errback(reason)


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
            self.name = f"{reference.path or reference.module}:{reference.name}"
            self._function = _function(reference)
        except ValueError as error:
            raise ConfigError(f"gateway.customer_source.function: {error}") from None
        self._clock = clock
        self._timeout = timeout
        self._defer_to_thread = defer_to_thread
        self._running = False

    def fetch(self) -> Deferred[list[object]]:
        """Call the function, unless an earlier call still runs: a thread cannot be stopped."""
        if self._running:
            return fail(SourceError("an earlier call has not ended yet"))
        self._running = True
        return within(self._timeout, self._clock, Deferred.fromCoroutine(self._fetch()))

    async def _fetch(self) -> list[object]:
        try:
            if inspect.iscoroutinefunction(self._function):
                return _listed(await self._awaited(self._function()))
            [result] = await self._defer_to_thread(self._in_thread)
            if isinstance(result, Awaitable):
                result = await self._awaited(result)
            return _listed(result)
        except (SourceError, CancelledError):
            raise
        except (Exception, SystemExit) as error:
            raise SourceError(f"it raised {_raised(error)}") from None

    def _in_thread(self) -> tuple[Any]:
        # Boxed: it may be a Deferred, which cannot be the result of a Deferred.
        try:
            return (self._function(),)
        finally:
            self._running = False

    async def _awaited(self, result: Awaitable[object]) -> object:
        self._running = True
        try:
            return await result
        finally:
            self._running = False


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
        raise ValueError(f"{where} cannot be loaded: {_one_line(error)}") from None
    except Exception as error:
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
    spec.loader.exec_module(module)
    return module


def _decoded(data: bytes) -> list[object]:
    try:
        return _listed(msgspec.json.decode(data))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"it is not JSON: {_one_line(error)}") from None


def _listed(value: object) -> list[object]:
    if isinstance(value, Mapping):
        value = value.get("customers")
    if not isinstance(value, list | tuple):
        raise SourceError('neither a list of customers nor an object with one as "customers"')
    return list(value)


def _without_user(url: DecodedURL) -> DecodedURL:
    return url.replace(userinfo=())  # type: ignore[arg-type]  # its own default, but not its type


def _redirected(url: DecodedURL, response: IResponse) -> DecodedURL:
    """Where a redirect leads.

    Raises:
        SourceError: to another origin, or nowhere.
    """
    [location, *_] = response.headers.getRawHeaders("location") or [""]
    try:
        target = _without_user(url.click(location))
    except ValueError:
        raise SourceError("it redirects to what is no URL") from None
    if (target.scheme, target.host, target.port) != (url.scheme, url.host, url.port):
        raise SourceError(f"it redirects to another server, {target.scheme}://{target.host}")
    return target


def _network_cause(error: BaseException) -> str:
    """What went wrong with a request; a failed one wraps its reasons."""
    while reasons := getattr(error, "reasons", None):
        error = reasons[-1].value
    return f"{type(error).__name__}: {_one_line(error)}"


def _raised(error: BaseException) -> str:
    """An exception of foreign code: its kind and its place; its text may hold secrets."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} ({Path(frame.filename).name}, line {frame.lineno})"


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= _LONGEST_CAUSE else f"{text[:_LONGEST_CAUSE]}…"
