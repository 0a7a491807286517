"""The built site behind a local server, and a headless Chromium driven through its DevTools pipe.

The server compresses as GitHub Pages does, so that what a page transfers can be measured. Without Chromium the tests
are skipped, except in continuous integration, where its absence is a failure.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import select
import shutil
import subprocess
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--no-first-run",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--mute-audio",
    "--remote-debugging-pipe",
]
SECONDS = 60


class Compressed(SimpleHTTPRequestHandler):
    """Files of the site, text ones compressed."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = self.translate_path(self.path)
        if os.path.isdir(path):
            path = os.path.join(path, "index.html")
        try:
            with open(path, "rb") as file:
                body = file.read()
        except OSError:
            self.send_error(404)
            return
        kind = self.guess_type(path)
        self.send_response(200)
        self.send_header("Content-Type", kind)
        if kind.startswith("text/") or "javascript" in kind or "json" in kind or "svg" in kind:
            body = gzip.compress(body, 6)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Page:
    """One tab: open an address at a width, evaluate scripts in it, and see what it complained about and loaded."""

    def __init__(self, browser: Browser):
        self.browser = browser
        self.target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=self.target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Network.setCacheDisabled", cacheDisabled=True)

    def call(self, method: str, **parameters):
        return self.browser.call(method, session=self.session, **parameters)

    def open(self, address: str, *, width: int, theme: str = "light") -> Page:
        phone = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=844 if phone else 900, deviceScaleFactor=1,
            mobile=phone,
        )  # fmt: skip
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        self.browser.events.clear()
        self.call("Page.navigate", url=address)
        self.browser.wait(lambda event: event["method"] == "Page.loadEventFired")
        self.evaluate("document.fonts.ready.then(() => window.MathJax?.startup?.promise).then(() => true)")
        self.evaluate("new Promise(done => setTimeout(() => requestAnimationFrame(() => done(true)), 300))")
        return self

    def evaluate(self, expression: str):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{expression!r} failed: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def screenshot(self, path, *, whole: bool = False) -> None:
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))

    def _events(self, method: str) -> list[dict]:
        events = [e for e in self.browser.events if e.get("sessionId") == self.session]
        return [e["params"] for e in events if e["method"] == method]

    def complaints(self) -> list[str]:
        """What the page's scripts threw or logged as an error since it was opened."""
        thrown = [str(e["exceptionDetails"]) for e in self._events("Runtime.exceptionThrown")]
        logged = [str(e["args"]) for e in self._events("Runtime.consoleAPICalled") if e["type"] == "error"]
        entries = [e["entry"] for e in self._events("Log.entryAdded")]
        return thrown + logged + [f"{e['text']} {e.get('url', '')}" for e in entries if e["level"] == "error"]

    def requested(self) -> list[str]:
        """Addresses asked for over the network; pictures embedded in the page are none."""
        addresses = [e["request"]["url"] for e in self._events("Network.requestWillBeSent")]
        return [address for address in addresses if not address.startswith("data:")]

    def transferred(self) -> int:
        """Bytes that went over the wire."""
        return int(sum(e["encodedDataLength"] for e in self._events("Network.loadingFinished")))


class Browser:
    """Chromium and its pipe: numbered calls go in, answers and events come out, each ended by a NUL byte."""

    def __init__(self, executable: str, profile):
        read_commands, self.commands = os.pipe()
        self.answers, write_answers = os.pipe()
        line = f'exec "$@" 3<&{read_commands} 4>&{write_answers}'
        self.process = subprocess.Popen(
            ["bash", "-c", line, "chromium", executable, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(read_commands, write_answers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(read_commands), os.close(write_answers)
        self.number, self.buffer, self.events = 0, b"", []

    def call(self, method: str, *, session: str | None = None, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        answer = self.wait(lambda event, number=self.number: event.get("id") == number)
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error']}")
        return answer["result"]

    def wait(self, wanted) -> dict:
        """The first message that is wanted; the events before it are kept."""
        end = time.monotonic() + SECONDS
        for event in self.events:
            if wanted(event):
                return event
        while time.monotonic() < end:
            message, ended, rest = self.buffer.partition(b"\0")
            if not ended:
                if select.select([self.answers], [], [], 1)[0]:
                    piece = os.read(self.answers, 1 << 20)
                    if not piece:
                        break
                    self.buffer += piece
                continue
            self.buffer, event = rest, json.loads(message)
            if "method" in event:
                self.events.append(event)
            if wanted(event):
                return event
        raise AssertionError(f"Chromium did not answer within {SECONDS} s")

    def close(self) -> None:
        try:
            self.call("Browser.close")
        except (AssertionError, OSError):
            self.process.kill()
        self.process.wait(SECONDS)
        os.close(self.commands), os.close(self.answers)


@pytest.fixture(scope="session")
def chromium() -> str:
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("Chromium is not installed")
    return found


@pytest.fixture(scope="session")
def address(site):
    """Where the built site is served."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Compressed, directory=str(site)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown(), server.server_close(), thread.join()


@pytest.fixture(scope="session")
def page(chromium, tmp_path_factory):
    browser = Browser(chromium, tmp_path_factory.mktemp("profile"))
    yield Page(browser)
    browser.close()
