"""A real headless Chromium for tests, spoken to in the Chrome DevTools Protocol over pipes."""

import atexit
import functools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias
from unittest import SkipTest

PATIENCE: Final = 60.0

_Listener: TypeAlias = Callable[[str, dict[str, Any]], None]

_OPTIONS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--allow-loopback-in-peer-connection",
    "--no-first-run",
    "--remote-debugging-pipe",
)

# Chromium reads commands from descriptor 3 and writes to 4; its own output is of no interest.
_AS_PIPES: Final = 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null'

_CLOCK: Final = """
(() => {
  const RealDate = Date;
  const realSetTimeout = setTimeout;
  const timers = new Map();
  let now = 1_700_000_000_000;
  let last = 0;
  let grid = 1;
  window.Date = class extends RealDate {
    constructor(...args) { super(...(args.length ? args : [now])); }
    static now() { return now; }
  };
  window.setTimeout = (callback, delay = 0, ...args) => {
    // As browsers do: it is kept in 32 bits, and what does not fit is due at once.
    const due = Math.ceil((now + Math.max(delay | 0, 0)) / grid) * grid;
    timers.set(++last, { due, run: () => callback(...args) });
    return last;
  };
  window.clearTimeout = (id) => { timers.delete(id); };
  // What a timer sets off is done, up to where it waits for something else than timers.
  const settle = () => new Promise((resolve) => realSetTimeout(resolve));
  window.testClock = {
    get timers() { return timers.size; },
    // As of a tab that nobody looks at: timers run at multiples of so many ms.
    throttle(ms) { grid = ms; },
    // The clock goes on, or is set, while timers stand still.
    sleep(ms) {
      now += ms;
      for (const timer of timers.values()) timer.due += ms;
    },
    async advance(ms) {
      const end = now + ms;
      for (;;) {
        const due = [...timers].filter(([, timer]) => timer.due <= end);
        if (!due.length) break;
        const [id, timer] = due.reduce((a, b) => (b[1].due < a[1].due ? b : a));
        timers.delete(id);
        now = Math.max(now, timer.due);
        realSetTimeout(timer.run);
        await settle();
      }
      now = end;
      await settle();
    },
    async until(condition) {
      while (!condition()) await new Promise((resolve) => realSetTimeout(resolve, 5));
    },
  };
})();
"""


class Page:
    """A tab with a profile of its own: nothing is cached, nothing is stored.

    Attributes:
        errors: uncaught exceptions, and what was logged as an error.
        sent: method and URL of each request that the page has sent, without CORS preflights.
    """

    def __init__(self, browser: "Browser") -> None:
        self._browser = browser
        self.errors: list[str] = []
        self.sent: list[str] = []
        self._loaded: set[str] = set()
        self._credentials: dict[str, str] = {}
        context = browser.call("Target.createBrowserContext")["browserContextId"]
        self._context = {"browserContextId": context}
        target = browser.call("Target.createTarget", {"url": "about:blank", **self._context})
        target["flatten"] = True
        self._session = browser.call("Target.attachToTarget", target)["sessionId"]
        browser.listeners[self._session] = self._hear
        for domain in ("Runtime", "Log", "Network", "Page"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", {"enabled": True})

    def call(self, method: str, params: dict[str, Any] | None = None) -> Any:
        """Call a method of the protocol on this page."""
        return self._browser.call(method, params, self._session)

    def close(self) -> None:
        """Close the tab and forget its profile."""
        self._browser.call("Target.disposeBrowserContext", self._context)
        del self._browser.listeners[self._session]

    def navigate(self, url: str) -> None:
        """Open a URL and wait until the page has loaded."""
        answer = self.call("Page.navigate", {"url": url})
        if "errorText" in answer:
            raise AssertionError(f"{url}: {answer['errorText']}")
        while answer["loaderId"] not in self._loaded:
            self._browser.receive(time.monotonic() + PATIENCE)

    def evaluate(self, expression: str) -> Any:
        """Evaluate JavaScript, wait for the promise if it gives one, and return its JSON value."""
        how = {"awaitPromise": True, "returnByValue": True}
        answer = self.call("Runtime.evaluate", {"expression": expression, **how})
        if "exceptionDetails" in answer:
            raise AssertionError(f"{expression}: {_thrown(answer['exceptionDetails'])}")
        return answer["result"].get("value")

    def stop_clock(self) -> None:
        """Let ``Date`` and timers of pages that are opened from now on obey :meth:`advance`."""
        self.call("Page.addScriptToEvaluateOnNewDocument", {"source": _CLOCK})

    def advance(self, seconds: float) -> None:
        """Let time pass on the stopped clock, and run the timers that become due."""
        self.evaluate(f"testClock.advance({round(seconds * 1000)})")

    def wait_until(self, condition: str) -> None:
        """Wait, in a page whose clock runs, until an expression is true."""
        end = time.monotonic() + PATIENCE
        while not self.evaluate(condition):
            assert time.monotonic() < end, f"never true: {condition}"
            time.sleep(0.02)

    def sign_in(self, user: str, password: str) -> None:
        """Give these credentials wherever the browser would ask a person for some."""
        self._credentials = {"username": user, "password": password}
        self.call("Fetch.enable", {"handleAuthRequests": True})

    def resize(self, width: int, height: int = 900, *, dark: bool = False) -> None:
        """Give the page another size, and the colours that a person prefers."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", {"features": [scheme]})

    def press(self, key: str) -> None:
        """Press and release a key: ``Tab``, ``Enter`` or ``Escape``."""
        code, text = {"Tab": (9, ""), "Enter": (13, "\r"), "Escape": (27, "")}[key]
        pressed = {"key": key, "code": key, "windowsVirtualKeyCode": code, "text": text}
        self.call("Input.dispatchKeyEvent", {"type": "keyDown", **pressed})
        self.call("Input.dispatchKeyEvent", {"type": "keyUp", **pressed, "text": ""})

    def write(self, text: str) -> None:
        """Write into what has the focus."""
        self.call("Input.insertText", {"text": text})

    def wait_for(self, condition: str) -> None:
        """Wait, in real time, until an expression is true in a page whose clock is stopped."""
        self.evaluate(f"testClock.until(() => {condition})")

    def _hear(self, event: str, params: dict[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            self.errors.append(_thrown(params["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and params["type"] == "error":
            shown = (str(arg.get("value", arg.get("description"))) for arg in params["args"])
            self.errors.append(" ".join(shown))
        elif event == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])
        elif event == "Network.requestWillBeSent" and params["initiator"]["type"] != "preflight":
            self.sent.append(f"{params['request']['method']} {params['request']['url']}")
        elif event == "Page.lifecycleEvent" and params["name"] == "load":
            self._loaded.add(params["loaderId"])
        elif event == "Fetch.requestPaused":
            self._tell("Fetch.continueRequest", {"requestId": params["requestId"]})
        elif event == "Fetch.authRequired":
            answer = {"response": "ProvideCredentials", **self._credentials}
            given = {"requestId": params["requestId"], "authChallengeResponse": answer}
            self._tell("Fetch.continueWithAuth", given)

    def _tell(self, method: str, params: dict[str, Any]) -> None:
        """Call a method and wait for no answer."""
        self._browser.send(method, params, self._session)


class Browser:
    """A Chromium process with its own folder.

    Raises:
        SkipTest: Chromium is not installed.
    """

    def __init__(self) -> None:
        program = shutil.which("chromium")
        if program is None:
            raise SkipTest("chromium is not installed (package chromium)")
        self.listeners: dict[str, _Listener] = {}
        self._folder = Path(tempfile.mkdtemp(prefix="odingw-browser-"))
        profile = f"--user-data-dir={self._folder}"
        with (self._folder / "stderr").open("wb") as stderr:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _AS_PIPES, "sh", program, *_OPTIONS, profile, "about:blank"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                bufsize=0,
            )
        self._replies: dict[int, dict[str, Any]] = {}
        self._received = bytearray()
        self._awaited: set[int] = set()
        self._last_id = 0

    def new_page(self) -> Page:
        """Open a tab."""
        return Page(self)

    def call(
        self, method: str, params: dict[str, Any] | None = None, session: str | None = None
    ) -> Any:
        """Call a method of the protocol and return its result."""
        number = self.send(method, params, session)
        self._awaited.add(number)
        deadline = time.monotonic() + PATIENCE
        while number not in self._replies:
            self.receive(deadline)
        self._awaited.discard(number)
        reply = self._replies.pop(number)
        if "error" in reply:
            raise AssertionError(f"{method}: {reply['error']['message']}")
        return reply["result"]

    def send(
        self, method: str, params: dict[str, Any] | None = None, session: str | None = None
    ) -> int:
        """Call a method of the protocol, and return the number of the call."""
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": params or {}}
        if session is not None:
            message["sessionId"] = session
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\0")
        return self._last_id

    def receive(self, deadline: float) -> None:
        """Take in what the browser says next; fail if it is silent until then."""
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        data = b""
        if select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            data = os.read(pipe, 65536)
        if not data:
            said = (self._folder / "stderr").read_text(errors="replace")[-2000:]
            raise AssertionError(f"chromium has ended, or does not answer:\n{said}")
        self._received += data
        *messages, self._received = self._received.split(b"\0")
        for message in map(json.loads, messages):
            if "id" in message:
                if message["id"] in self._awaited:
                    self._replies[message["id"]] = message
            elif (listener := self.listeners.get(message.get("sessionId"))) is not None:
                listener(message["method"], message["params"])

    def close(self) -> None:
        """End the process and remove its folder."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # It ends by itself when nobody speaks to it any more, with all the processes it has.
        self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            shutil.rmtree(self._folder, ignore_errors=True)


@functools.cache
def shared_browser() -> Browser:
    """Return the browser that the tests of this process share; it ends with the process."""
    browser = Browser()
    atexit.register(browser.close)
    return browser


def _thrown(details: dict[str, Any]) -> str:
    exception = details.get("exception", {})
    return str(exception.get("description") or exception.get("value") or details["text"])
