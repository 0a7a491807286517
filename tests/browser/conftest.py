"""The built site behind a local server, and headless Chromium driven by Selenium.

The server compresses as GitHub Pages does, so that what a page transfers can be measured. Without Chromium and its
driver the tests are skipped, except in continuous integration, where their absence is a failure.
"""

from __future__ import annotations

import gzip
import os
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.browser.visiting import Visitor, start

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


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


def found(*names: str) -> str:
    """The first of these programs that is installed; without one the test is skipped."""
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{names[0]} is not installed")
    return program


@pytest.fixture(scope="session")
def address(site):
    """Where the built site is served."""
    with serving(site) as url:
        yield url


class serving:
    """A folder of pages behind a local address, for the length of a block."""

    def __init__(self, folder):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Compressed, directory=str(folder)))
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever)

    def __enter__(self) -> str:
        self.thread.start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *_):
        self.server.shutdown(), self.server.server_close(), self.thread.join()


@pytest.fixture(scope="session")
def driver():
    browser = start(found(*CHROMIUM), found("chromedriver"))
    yield browser
    browser.quit()


@pytest.fixture(scope="session")
def visits(driver, address):
    """What is to be seen on each page at each width in each theme."""
    return Visitor(driver, address)
