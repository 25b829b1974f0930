"""Where lists of customers come from while the gateway runs: a file or a URL.

What they yield is untrusted; all that is checked here is that it is a list. Error texts are for the
log: they name no credentials, no query and nothing that was received.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from treq.client import HTTPClient
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from odingw.documents import NotJsonError, read_document
from odingw.errors import ConfigError, FetchError, OdingwError
from odingw.fetch import Clock, get, origin_of, without_user
from odingw.file_state import FileState, file_state
from odingw.files import read_file

T = TypeVar("T")

TIMEOUT: Final = 30.0
MAX_BYTES: Final = 16 * 1024 * 1024
MAX_REDIRECTS: Final = 3
_LONGEST_CAUSE: Final = 200


class SourceError(OdingwError):
    """A list of customers could not be had; the text is one line without secrets."""


class Source(Protocol):
    """Something that has a list of customers."""

    @property
    def name(self) -> str:
        """What the log calls it; no secrets."""

    def fetch(self) -> Deferred[list[object]]:
        """Get the list. It may fail with anything, a `SourceError` preferably."""


def within(seconds: float, clock: Clock, deferred: Deferred[T]) -> Deferred[T]:
    """Bound the time that something takes.

    `Deferred.addTimeout` waits until what it cancelled has ended; a coroutine that catches the
    cancellation never does.

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


class OneThread(Generic[T]):
    """Calls a function in a thread, but not before an earlier call has ended.

    A thread that hangs cannot be stopped, and the reactor has few: it looks up names in them, too.

    Args:
        function: what to call.
        defer_to_thread: calls a function in a thread.
    """

    def __init__(
        self, function: Callable[[], T], defer_to_thread: Callable[..., Deferred[Any]]
    ) -> None:
        self._function = function
        self._defer_to_thread = defer_to_thread
        self._running = False

    async def call(self) -> T:
        """Call the function; even a Deferred is returned as it is.

        Raises:
            SourceError: an earlier call runs.
        """
        if self._running:
            raise SourceError("an earlier call has not ended yet")
        self._running = True
        boxed: tuple[T] = await self._defer_to_thread(self._boxed)
        return boxed[0]

    def _boxed(self) -> tuple[T]:
        # A Deferred cannot be the result of a Deferred.
        try:
            return (self._function(),)
        finally:
            self._running = False


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
        self._seen: FileState = None
        self._reader = OneThread(self._read, defer_to_thread)
        self._looker = OneThread(self._look, defer_to_thread)
        self._max_bytes = max_bytes

    @property
    def name(self) -> str:
        """The path."""
        return str(self._path)

    def fetch(self) -> Deferred[list[object]]:
        """Read the file."""
        return Deferred.fromCoroutine(self._reader.call())

    def changed(self) -> Deferred[bool]:
        """Tell whether the file is another than when it was read last.

        Returns:
            Fails with a `SourceError` if the file system hangs.
        """
        return Deferred.fromCoroutine(self._looker.call())

    def _look(self) -> bool:
        return file_state(self._path) != self._seen

    def _read(self) -> list[object]:
        self._seen = file_state(self._path)
        try:
            data = read_file(self._path, max_bytes=self._max_bytes, pipes=False)
        except OSError as error:
            raise SourceError(error.strerror or type(error).__name__) from None
        return decoded(data)


class UrlSource:
    """A URL that answers GET with JSON.

    Redirects are followed on the same origin only, so credentials in the URL go nowhere else.

    Args:
        url: an http or https URL; a user and password in it are sent as HTTP Basic.
        client: the HTTP client; as from ``odingw.fetch.http_client``.
        clock: for the time limit.
        timeout: seconds that the whole of it may take.
        max_bytes: the longest body that is read.
        aside: calls a function that may take a while, in a thread preferably.

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
        aside: Callable[..., Deferred[Any]] = maybeDeferred,
    ) -> None:
        try:
            parts = urlsplit(url)
            origin_of(url)
        except ValueError:
            raise ConfigError("gateway.customer_source.url: not a URL") from None
        self._auth = (
            None
            if parts.username is None
            else (unquote(parts.username), unquote(parts.password or ""))
        )
        self._url = without_user(url)
        self._client = client
        self._clock = clock
        self._timeout = timeout
        self._aside = aside
        self._max_bytes = max_bytes

    @property
    def name(self) -> str:
        """The URL without credentials, query and fragment."""
        return self._url.partition("?")[0]

    def fetch(self) -> Deferred[list[object]]:
        """Get the URL."""
        return within(self._timeout, self._clock, Deferred.fromCoroutine(self._fetch()))

    async def _fetch(self) -> list[object]:
        try:
            body = await get(
                self._url,
                self._client,
                accept="application/json",
                max_bytes=self._max_bytes,
                auth=self._auth,
                redirects=MAX_REDIRECTS,
            )
        except FetchError as error:
            raise SourceError(str(error)) from None
        found: list[object] = await self._aside(decoded, body)
        return found


def decoded(data: bytes) -> list[object]:
    """Return the list of customers that a document has.

    Raises:
        SourceError: there is none in it.
    """
    try:
        return listed(read_document(data))
    except NotJsonError as error:
        raise SourceError(f"it is not JSON: {error}") from None


def listed(value: object) -> list[object]:
    """The list of customers: the value itself, or its member ``customers``.

    Raises:
        SourceError: neither is a list.
    """
    if isinstance(value, Mapping):
        value = value.get("customers")
    if not isinstance(value, list | tuple):
        raise SourceError('neither a list of customers nor an object with one as "customers"')
    return list(value)


def one_line(error: BaseException) -> str:
    """An error's text, shortened."""
    text = " ".join(str(error).split())
    return text if len(text) <= _LONGEST_CAUSE else f"{text[:_LONGEST_CAUSE]}…"
