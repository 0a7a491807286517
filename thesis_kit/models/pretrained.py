"""timm's networks with the weights it publishes: from disk, else from the network, else one sentence and no waiting."""

from __future__ import annotations

import contextlib
from typing import Any
from urllib.parse import urlsplit

from torch import nn

from thesis_kit.connection import offline, reachable
from thesis_kit.extras import needs

_LIBRARIES = {"huggingface_hub", "httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3"}  # that download


class WeightsUnavailable(ValueError):
    """Weights or a configuration that could not be read from disk or the network."""


def create(name: str, *, pretrained: bool, **options: Any) -> nn.Module:
    """timm's network ``name``; without a connection, of published weights only those count that are on disk already.

    Raises:
        WeightsUnavailable: the weights, or a hub's configuration, are not there and cannot be downloaded.
    """
    timm = needs("timm")
    source = _source(timm, name, pretrained)
    online = source is None or reachable(source)
    try:
        with contextlib.nullcontext() if online else offline():
            return timm.create_model(name, pretrained=pretrained, **options)
    except Exception as error:
        if not _is_of_loading(error):
            raise
        said = " ".join(str(error).split()).rstrip(".")
        why = said if online else f"{urlsplit(source).hostname} does not answer"
        raise WeightsUnavailable(
            f"{name} could not be loaded ({why}): connect to the network once, or leave out pretrained"
        ) from error


def _source(timm: Any, name: str, pretrained: bool) -> str | None:
    """The address that timm will ask; None where it will ask none."""
    if name.startswith("local-dir:") or not (pretrained or ":" in name):
        return None
    config = None if ":" in name else timm.get_pretrained_cfg(name)
    if config is None or config.hf_hub_id:
        return needs("huggingface_hub.constants", extra="timm").ENDPOINT
    return config.url or None


def _is_of_loading(error: BaseException) -> bool:
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _LIBRARIES
