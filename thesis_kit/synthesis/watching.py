"""A forward pass that notes what some layers give, and stops behind the last of them."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from thesis_kit.asking import Model, as_module, ask, evaluating, plain
from thesis_kit.checks import check_count, check_images, check_logits, check_same_device, choose
from thesis_kit.models.seen import inside
from thesis_kit.synthesis.objectives import IMAGES, LOGITS

_PREFIX = "input of "
_FUSED = (
    "under fused attention, which computes no map: set fused_attn = False on the attention layers, or call "
    "timm.layers.set_fused_attn(False), or set TIMM_FUSED_ATTN=0, before the model is made"
)


class _Enough(Exception):
    """All that was asked for has been seen."""


class Watcher:
    """Runs a model and returns what was asked for: a layer by name, "input of" a layer, ``LOGITS`` or ``IMAGES``.

    A layer's name is that of ``named_modules()``, of the model or of the network in a ``Classifier``, a compiled model
    or a ``DataParallel``; where several have it, the outermost counts. Where the logits are not asked for, the pass
    ends as soon as everything else has been seen, so that layers behind the deepest one asked for cost nothing. A layer
    that runs several times in one pass is seen the first time. A compiled model is run as it was before, since what it
    was compiled to passes hooks by.

    Args:
        model: what is run. names: what is asked for.
        optional: those of the names that a pass need not reach. The first pass decides which they are.

    Raises:
        UnknownName: a layer does not exist; near names are offered.
        ValueError: a layer was not reached, or gives no tensor.
    """

    def __init__(self, model: nn.Module, names: Iterable[str], optional: Collection[str] = ()):
        self.model, self.names, self._optional = model, tuple(dict.fromkeys(names)), set(optional)
        modules: dict[str, nn.Module] = {}
        part: nn.Module | None = model
        while part is not None:
            modules = {name: m for name, m in part.named_modules(remove_duplicate=False) if name} | modules
            part = inside(part)
        self._modules = {
            name: choose(name.removeprefix(_PREFIX), modules, "layer")
            for name in self.names
            if name not in (IMAGES, LOGITS)
        }
        self._around = {name: _around(name.removeprefix(_PREFIX), modules) for name in self._modules}
        self._seen: dict[str, Tensor] = {}

    @contextmanager
    def watching(self) -> Iterator[Watcher]:
        """Hooks on the layers inside the block, gone after it."""
        handles = []
        with _uncompiled() if self._modules else nullcontext():
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
                logits = ask(_on_one_device(self.model), x)
                if LOGITS in self.names:
                    check_logits(logits, len(x))
                    self._seen[LOGITS] = logits
            except _Enough:
                pass
        missing = self._waiting()
        self.names = tuple(name for name in self.names if name not in missing or name not in self._optional)
        if missing := self._waiting():
            fused = " " + _FUSED if any(_is_fused(self._around[name]) for name in missing) else ""
            raise ValueError(f"the model's forward pass never reaches {', '.join(missing)}{fused}")
        return self._seen

    def is_batch_norm(self, name: str) -> bool:
        """Whether what is seen under a name is the input of a BatchNorm."""
        return name.startswith(_PREFIX) and isinstance(self._modules[name], _BatchNorm)

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


def _uncompiled() -> AbstractContextManager:
    """Whatever is compiled runs as it was before, inside the block."""
    never = "torch._dynamo" not in sys.modules  # the compiler, which takes seconds to load
    return nullcontext() if never else torch.compiler.set_stance("force_eager")


def _on_one_device(model: nn.Module) -> nn.Module:
    """Copies of a ``DataParallel``'s network on several devices would each be seen with a part of the images."""
    return model.module if isinstance(model, nn.DataParallel) else model


def _around(name: str, modules: Mapping[str, nn.Module]) -> nn.Module | None:
    """The module that a layer is part of."""
    return modules.get(name.rpartition(".")[0])


def _is_fused(attention: nn.Module | None) -> bool:
    """Whether it is one of timm's attentions that computes its map inside of one operation."""
    return bool(getattr(attention, "fused_attn", False))


def activations(
    model: Model, layers: str | Sequence[str], x: Float[Tensor, "n c h w"], *, batch_size: int = 256
) -> dict[str, Tensor]:
    """What some layers give when the model, in evaluation mode, is shown images: layer -> (n, …), on their device.

    Args:
        model: pixels in [0, 1] to anything; of a plain function there are only ``LOGITS``.
        layers: names as objectives take them: of ``named_modules()``, "input of" one of them, ``LOGITS``.
        x: images, on the model's device.
        batch_size: images a pass. All that is seen is kept, which is much for maps of many images.

    Raises:
        UnknownName: a layer does not exist; near names are offered.
        ValueError, TypeError: a layer is not reached or gives no tensor; images that are none.
    """
    model = as_module(model)
    check_images(x), check_same_device(model, x), check_count(batch_size, what="batch_size")
    watcher = Watcher(model, [layers] if isinstance(layers, str) else layers)
    with evaluating(model), torch.no_grad(), watcher.watching():
        seen = [dict(watcher(some)) for some in plain(x).split(batch_size)]
        return {name: torch.cat([part[name] for part in seen]) for name in watcher.names}
