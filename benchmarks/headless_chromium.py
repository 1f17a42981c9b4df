"""A page in headless Chromium, driven over the browser's own pipe: no driver to install, and real time.

(`--dump-dom` needs `--virtual-time-budget` to wait for a page, and virtual time makes latencies meaningless.)
"""

import base64
import fcntl
import functools
import json
import os
import selectors
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from pydantic import JsonValue

NEEDS_CHROMIUM = "needs Chromium: install chromium"
FLAGS = ("--headless=new", "--no-sandbox", "--no-first-run", "--disable-gpu", "--remote-debugging-pipe")
LOWEST_PIPE = 10
"""Chromium reads commands from descriptor 3 and answers on 4: ours must not be one of the two."""


class PageError(Exception):
    """The page threw, or the browser did not answer."""


class _Files(SimpleHTTPRequestHandler):
    """Static files of one folder, for pages that want a clock of 5 us: browsers round it to 0.1 ms unless isolated."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def end_headers(self) -> None:
        """Isolate the page from other origins."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, format: str, *values: object) -> None:  # noqa: A002  # the name that it has there
        """Say nothing."""


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine, and yield its address, which ends with a slash."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Files, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def find_chromium() -> str | None:
    """Return the browser's program, where it is installed."""
    return shutil.which("chromium") or shutil.which("google-chrome")


class Page:
    """One page of a browser that runs."""

    def __init__(self, commands: int, answers: int, timeout_s: float) -> None:
        self._commands, self._answers, self._timeout_s = commands, answers, timeout_s
        self._buffer = b""
        self._last_id = 0
        self._session: str | None = None

    def open(self, url: str, *, width: int, height: int) -> None:
        """Load a page, its modules too."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = str(self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])
        size: dict[str, JsonValue] = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **size)
        self._call("Page.enable")
        self._call("Page.navigate", url=url)
        self._wait_for(lambda message: message.get("method") == "Page.loadEventFired")

    def evaluate(self, expression: str) -> JsonValue:
        """Return the value of an expression, awaited; raises PageError with what it threw."""
        result = self._call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if isinstance(thrown := result.get("exceptionDetails"), dict):
            exception = thrown.get("exception")
            raise PageError(str(exception.get("description") if isinstance(exception, dict) else thrown.get("text")))
        value = result["result"]
        return value.get("value") if isinstance(value, dict) else None

    def screenshot(self) -> bytes:
        """Return the whole page as PNG."""
        shot = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(str(shot["data"]))

    def close(self) -> None:
        """End the browser."""
        self._session = None
        self._call("Browser.close")

    def _call(self, method: str, **params: JsonValue) -> dict[str, JsonValue]:
        self._last_id += 1
        call: dict[str, JsonValue] = {"id": self._last_id, "method": method, "params": params}
        if self._session is not None:
            call["sessionId"] = self._session
        os.write(self._commands, json.dumps(call).encode() + b"\0")
        answer = self._wait_for(lambda message: message.get("id") == self._last_id)
        result = answer.get("result")
        if not isinstance(result, dict):
            raise PageError(f"{method}: expected a result; got {answer.get('error')}")
        return result

    def _wait_for(self, is_it: Callable[[dict[str, JsonValue]], bool]) -> dict[str, JsonValue]:
        """Return the next message that is meant; the others say nothing that is asked here."""
        ends = time.monotonic() + self._timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._answers, selectors.EVENT_READ)
            while True:
                message, found, rest = self._buffer.partition(b"\0")
                if found:
                    self._buffer = rest
                    parsed: dict[str, JsonValue] = json.loads(message)
                    if is_it(parsed):
                        return parsed
                elif not selector.select(ends - time.monotonic()):
                    raise PageError(f"expected an answer of the browser within {self._timeout_s:.0f} s; got none")
                elif part := os.read(self._answers, 2**20):
                    self._buffer += part
                else:
                    raise PageError("expected an answer of the browser; got its end")


@contextmanager
def chromium(program: str, *, timeout_s: float = 120) -> Iterator[Page]:
    """Start a browser with a profile of its own, and yield what drives its page."""
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        (from_us, commands), (answers, to_us) = _pipe(), _pipe()
        redirected = f'exec "$0" "$@" 3<&{from_us} 4>&{to_us}'
        process = subprocess.Popen(
            ["bash", "-c", redirected, program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(from_us, to_us),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(from_us)
        os.close(to_us)
        try:
            page = Page(commands, answers, timeout_s)
            yield page
            page.close()
        finally:
            os.close(commands)
            os.close(answers)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _pipe() -> tuple[int, int]:
    """Return a pipe whose ends have high numbers."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, LOWEST_PIPE) for end in ends)
    for end in ends:
        os.close(end)
    return high[0], high[1]
