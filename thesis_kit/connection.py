"""Is there a connection? Asked before a download, so that being offline is said at once and not after many retries."""

from __future__ import annotations

import contextlib
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

SECONDS = 1.5  # to wait for an answer


def reachable(url: str, *, seconds: float = SECONDS) -> bool:
    """Whether the host of ``url`` answers within so many seconds, through the proxy where one is set."""
    answers: list[bool] = []
    asking = threading.Thread(target=lambda: answers.append(_answers(url, seconds)), daemon=True)
    asking.start()  # looking up a name cannot be told how long to try
    asking.join(seconds)
    return answers == [True]


def _answers(url: str, seconds: float) -> bool:
    where = urlsplit(url)
    host, port = where.hostname or "", where.port or (80 if where.scheme == "http" else 443)
    try:
        if where.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds).close()
        else:
            socket.create_connection((host, port), timeout=seconds).close()
    except urllib.error.HTTPError:
        return True  # it answers, if only that there is no such page
    except (OSError, ValueError):
        return False
    return True


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Inside the block nothing is waited for: the hub's library takes what it has kept, or fails at once."""
    before = socket.getdefaulttimeout()
    try:
        import huggingface_hub.constants as hub
    except ImportError:
        hub = None
    was = getattr(hub, "HF_HUB_OFFLINE", None)
    try:
        socket.setdefaulttimeout(SECONDS)
        if hub is not None:
            hub.HF_HUB_OFFLINE = True
        yield
    finally:
        socket.setdefaulttimeout(before)
        if hub is not None:
            hub.HF_HUB_OFFLINE = was
