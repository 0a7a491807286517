"""From a name to the place where it is listened to, and from what is seen there to the order that a site promises."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from thesis_kit.checks import choose
from thesis_kit.recording.listing import found_in
from thesis_kit.recording.sites import Site, Sites

INPUT_OF = "input of "
_AGAIN = re.compile(r"#([1-9]\d*)$")
_WRAPPED = re.compile(r"^((network|module|_orig_mod)\.)+")


@dataclass(frozen=True)
class Tap:
    """Where something is seen: at a module's "output" or "input", or at a part of an attention; in which of its runs.

    ``layer`` is the module's name. Without a site, what is seen is left as it is.
    """

    module: nn.Module
    at: str
    layer: str
    run: int = 1
    site: Site | None = None


class Finder:
    """Finds taps by name among a model's modules and, where no module has the name, among its sites."""

    def __init__(self, model: nn.Module, modules: Mapping[str, nn.Module]):
        self._model, self._modules, self._sites = model, modules, None

    @property
    def sites(self) -> Sites:
        """The model's sites, looked for when they are first needed."""
        self._sites = found_in(self._model) if self._sites is None else self._sites
        return self._sites

    def __call__(self, name: str) -> Tap:
        """The tap of a layer, "input of" a layer, or a site, in its k-th run in a pass where "#k" is behind it."""
        again = None if name.removeprefix(INPUT_OF) in self._modules else _AGAIN.search(name)
        name, run = (name[: again.start()], int(again[1])) if again else (name, 1)
        layer = name.removeprefix(INPUT_OF)
        if layer in self._modules:
            return Tap(self._modules[layer], "output" if layer == name else "input", layer, run)
        inner = _WRAPPED.sub("", name)
        if inner in self.sites.refused:
            raise ValueError(f"{name} cannot be recorded. {self.sites.refused[inner].refusal}")
        if inner not in self.sites:
            inner = choose(layer, [*self._modules, *self.sites], "layer")
        site = self.sites[inner]
        return Tap(self.sites.modules[site.module], site.at, site.module, run, site)


def arranged(value: object, site: Site, n: int) -> Tensor:
    """What was seen at a site, with the n inputs first and in the order of its form.

    Raises:
        ValueError: there is no tensor, or its rows cannot be told apart by input.
    """
    if isinstance(value, tuple | list) and value and isinstance(value[0], Tensor):
        value = value[0]  # as attentions and encoders give them, beside weights or a bias
    if not isinstance(value, Tensor):
        raise ValueError(f"{site.name} gives {type(value).__name__}, not one tensor: choose a layer inside it")
    if site.form in ("heads", "attention"):
        return _by_head(value, site, n)
    if not site.batch_first and value.ndim == 3 and site.form == "tokens":
        value = value.transpose(0, 1)
    if len(value) != n or value.ndim < 2:
        raise ValueError(
            f"{site.name} is of shape {tuple(value.shape)} for {n} inputs, and its first dimension must be the inputs: "
            f"take the layer {site.module!r} as it is, or another site"
        )
    if site.kind == "layer" and value.ndim == 4 and value.shape[1] != site.width == value.shape[-1]:
        return value.movedim(-1, 1)  # a convolution and what turns its maps for what comes next
    first = site.width is not None and value.shape[1] == site.width != value.shape[-1]
    return value.movedim(-1, 1) if value.ndim > 3 and site.channels_last and not first else value


def lying_as(value: Tensor, place: Site, n: int, name: str) -> Tensor | None:
    """What a layer gives, arranged as at a site that it lies like; None if it does not.

    A stage may turn its tokens back into maps when it is done, or change their number of channels.

    Raises:
        ValueError: the inputs are not first, or channels may be first or last.
    """
    if value.ndim != 4 or place.form != "tokens" or place.width is None:
        return arranged(value, place, n)
    first, last = value.shape[1] == place.width, value.shape[-1] == place.width
    if first and last:
        raise ValueError(
            f"{name} is of shape {tuple(value.shape)}, with channels first or last: take the site {place.name}, of "
            "which that is known"
        )
    return arranged(value, place, n) if last else None


def _by_head(value: Tensor, site: Site, n: int) -> Tensor:
    """(n, heads, t, …), also of heads that lie in the rows."""
    heads = site.heads or 1
    if value.ndim == 3 and len(value) == n * heads:
        value = value.unflatten(0, (n, heads))
    if value.ndim != 4 or len(value) != n:
        raise ValueError(
            f"{site.name} is of shape {tuple(value.shape)} for {n} inputs: the attention works in windows, or in an "
            "order of its own, so that it belongs to no token of an input; take the sites residual or hidden"
        )
    return value
