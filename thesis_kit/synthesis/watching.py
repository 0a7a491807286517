"""A forward pass that notes what some layers give, and stops behind the last of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from thesis_kit.asking import evaluating
from thesis_kit.checks import check_count, check_images, check_logits, check_same_device, choose
from thesis_kit.models.classifier import Classifier
from thesis_kit.synthesis.objectives import IMAGES, LOGITS

_PREFIX = "input of "


class _Enough(Exception):
    """All that was asked for has been seen."""


class Watcher:
    """Runs a model and returns what was asked for: a layer by name, "input of" a layer, ``LOGITS`` or ``IMAGES``.

    A layer's name is that of ``named_modules()``, of the model or of the network in a ``Classifier``; where both have
    it, the model's counts. Where the logits
    are not asked for, the pass ends as soon as everything else has been seen, so that layers behind the deepest one
    asked for cost nothing. A layer that runs several times in one pass is seen the first time.

    Raises:
        UnknownName: a layer does not exist; near names are offered.
        ValueError: a layer was not reached, or gives no tensor.
    """

    def __init__(self, model: nn.Module, names: Iterable[str]):
        self.model, self.names = model, tuple(dict.fromkeys(names))
        network = model.network if isinstance(model, Classifier) else model
        modules = {name: m for part in (network, model) for name, m in part.named_modules() if name}
        self._modules = {
            name: choose(name.removeprefix(_PREFIX), modules, "layer")
            for name in self.names
            if name not in (IMAGES, LOGITS)
        }
        self._seen: dict[str, Tensor] = {}

    @contextmanager
    def watching(self) -> Iterator[Watcher]:
        """Hooks on the layers inside the block, gone after it."""
        handles = []
        try:
            for name, module in self._modules.items():
                if name.startswith(_PREFIX):
                    handles.append(module.register_forward_pre_hook(self._taker(name), with_kwargs=True))
                else:
                    handles.append(module.register_forward_hook(self._keeper(name)))
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        """What is seen when the model is given the images x (n, c, h, w)."""
        self._seen = {IMAGES: x} if IMAGES in self.names else {}
        if self._waiting():
            try:
                logits = self.model(x.clone() if IMAGES in self.names else x)  # some normalize in place
                if LOGITS in self.names:
                    check_logits(logits, len(x))
                    self._seen[LOGITS] = logits
            except _Enough:
                pass
        missing = self._waiting()
        if missing:
            raise ValueError(f"the model's forward pass never reaches {', '.join(missing)}")
        return self._seen

    def _waiting(self) -> list[str]:
        return [name for name in self.names if name not in self._seen]

    def _keeper(self, name: str):
        return lambda module, inputs, output: self._note(name, output)

    def _taker(self, name: str):
        return lambda module, inputs, named: self._note(name, [*inputs, *named.values()][0])

    def _note(self, name: str, value: object) -> None:
        if not isinstance(value, Tensor):
            raise ValueError(f"{name} gives {type(value).__name__}, not one tensor: choose a layer inside it")
        if name in self._seen:
            return
        self._seen[name] = value
        if LOGITS not in self.names and not self._waiting():
            raise _Enough
        self._seen[name] = value.clone()  # what comes next may work in place, as a ReLU or a residual sum does


def activations(
    model: nn.Module, layers: str | Sequence[str], x: Float[Tensor, "n c h w"], *, batch_size: int = 256
) -> dict[str, Tensor]:
    """What some layers give when the model, in evaluation mode, is shown images: layer -> (n, …), on their device.

    Args:
        model: pixels in [0, 1] to anything.
        layers: names as objectives take them: of ``named_modules()``, "input of" one of them, ``LOGITS``.
        x: images, on the model's device.
        batch_size: images a pass. All that is seen is kept, which is much for maps of many images.

    Raises:
        UnknownName: a layer does not exist; near names are offered.
        ValueError, TypeError: a layer is not reached or gives no tensor; images that are none.
    """
    check_images(x), check_same_device(model, x), check_count(batch_size, what="batch_size")
    watcher = Watcher(model, [layers] if isinstance(layers, str) else layers)
    with evaluating(model), torch.no_grad(), watcher.watching():
        seen = [dict(watcher(some)) for some in x.split(batch_size)]
    return {name: torch.cat([part[name] for part in seen]) for name in watcher.names}
