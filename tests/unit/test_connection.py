"""Being offline is noticed at once: a host that does not answer, or takes too long, is not waited for."""

from __future__ import annotations

import socket
import time

import huggingface_hub.constants as hub
import pytest
import timm

from thesis_kit import connection
from thesis_kit.connection import offline, reachable
from thesis_kit.models import build
from thesis_kit.models.build import WeightsUnavailable


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/page"


@pytest.fixture
def closed():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"http://127.0.0.1:{port}"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    monkeypatch.setattr("urllib.request.getproxies", dict)


def test_a_host_that_answers_is_told_from_one_that_does_not(listening, closed):
    assert reachable(listening)
    assert not reachable(closed)
    assert not reachable("")
    assert not reachable("https://no-such-host.invalid")


def test_nobody_waits_for_long(monkeypatch):
    monkeypatch.setattr(connection, "_answers", lambda *_: time.sleep(5) or True)
    begun = time.perf_counter()
    assert not reachable("https://example.invalid", seconds=0.2)
    assert time.perf_counter() - begun < 1


def test_a_proxy_is_asked_where_there_is_one(listening, closed, monkeypatch):
    monkeypatch.setattr("urllib.request.getproxies", lambda: {"http": closed})
    monkeypatch.setenv("http_proxy", closed)
    monkeypatch.setenv("no_proxy", "")
    assert not reachable(listening)


def test_offline_gives_back_what_it_found():
    before = hub.HF_HUB_OFFLINE, socket.getdefaulttimeout()
    with offline():
        assert hub.HF_HUB_OFFLINE is True
        assert socket.getdefaulttimeout() == connection.SECONDS
    with pytest.raises(ZeroDivisionError), offline():
        raise ZeroDivisionError
    assert (hub.HF_HUB_OFFLINE, socket.getdefaulttimeout()) == before


def test_published_weights_without_a_connection_are_one_sentence_within_two_seconds(monkeypatch, tmp_path, closed):
    monkeypatch.setattr(hub, "ENDPOINT", closed)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    timm.create_model("test_resnet")  # loads what is loaded once
    begun = time.perf_counter()
    with pytest.raises(WeightsUnavailable) as caught:
        build("test_resnet", pretrained=True)
    assert time.perf_counter() - begun < 2
    assert str(caught.value) == (
        "test_resnet could not be loaded (127.0.0.1 does not answer): connect to the network once, or leave out "
        "pretrained"
    )


def test_weights_that_are_on_disk_are_taken_without_a_connection(monkeypatch):
    asked = []
    monkeypatch.setattr("thesis_kit.models.pretrained.reachable", lambda url: False)
    made = timm.create_model("test_resnet")

    def make(name, *, pretrained, **_):
        asked.append((pretrained, hub.HF_HUB_OFFLINE))
        return made

    monkeypatch.setattr(timm, "create_model", make)
    assert build("test_resnet", pretrained=True).network is made
    assert asked == [(True, True)]
    build("test_resnet")
    assert asked[1] == (False, False)
