"""A forward pass that notes what stands at some sites or layers, and stops behind the last of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from thesis_kit.asking import ask, taking
from thesis_kit.checks import check_logits
from thesis_kit.models.classifier import Classifier
from thesis_kit.models.seen import inside
from thesis_kit.recording.attending import Attending
from thesis_kit.recording.listing import found_in, site_at, site_of_layer
from thesis_kit.recording.sites import ATTENDED, Site
from thesis_kit.recording.taps import INPUT_OF, Finder, arranged, lying_as

LOGITS, IMAGES = "logits", "images"
_FUSED = (
    "under fused attention, which computes no map: set fused_attn = False on the attention layers, or call "
    "timm.layers.set_fused_attn(False), or set TIMM_FUSED_ATTN=0, before the model is made; or take the block's site "
    "“attention_map”, which is recorded either way"
)
_UNHEARD = (
    ": q, k, v and maps are overheard where an attention calls scaled_dot_product_attention, matmul or softmax, and "
    "not in other ways such as einsum; take its site “attention_out”, or a layer inside it"
)


class _Enough(Exception):
    """All that was asked for has been seen."""


class Watcher:
    """Runs a model and returns what was asked for: by site, by layer, "input of" a layer, ``LOGITS`` or ``IMAGES``.

    Sites are those of ``sites(model)``, and what is seen there is arranged as they say. A layer's name is that of
    ``named_modules()``, of the model or of the network in a ``Classifier``, a compiled model or a ``DataParallel``;
    where several have it, the outermost counts, and a layer comes before a site. What a layer gives is left as it is.
    Where the logits are not asked for, the pass ends as soon as everything else has been seen, so that layers behind
    the deepest one asked for cost nothing. A layer that runs several times in one pass is seen the first time, and its
    second time as "name#2". A compiled model is run as it was before, since what it was compiled to passes hooks by,
    and the fast paths of PyTorch's own transformers are off, for they do so too.

    Args:
        model: what is run. names: what is asked for.
        optional: those of the names that a pass need not reach. The first pass decides which they are.
        run: what is called with the inputs, where it is not the model itself.
        to_the_end: whether the pass goes on when everything has been seen; ``runs`` then says how often each was.

    Raises:
        UnknownName: a layer does not exist; near names are offered.
        ValueError: a layer was not reached, or gives no tensor; a site that cannot be recorded; inputs that the model
            cannot take.
    """

    def __init__(
        self, model: nn.Module, names: Iterable[str], optional: Collection[str] = (), *,
        run: Callable[[Tensor], object] | None = None, to_the_end: bool = False,
    ):  # fmt: skip
        self.model, self.names, self._optional = model, tuple(dict.fromkeys(names)), set(optional)
        self._run, self._to_the_end, self.runs = run, to_the_end, {}
        modules: dict[str, nn.Module] = {}
        part: nn.Module | None = model
        while part is not None:
            modules = {name: m for name, m in part.named_modules(remove_duplicate=False) if name} | modules
            part = inside(part)
        find = Finder(model, modules)
        self._taps = {name: find(name) for name in self.names if name not in (IMAGES, LOGITS)}
        self._around = {name: modules.get(tap.layer.rpartition(".")[0]) for name, tap in self._taps.items()}
        self._attending = self._made_attending()
        self._seen: dict[str, Tensor] = {}
        self._n, self._size, self._places = 0, None, {}

    def _made_attending(self) -> Attending | None:
        wanted: dict[nn.Module, dict[str, Callable]] = {}
        for tap in self._taps.values():
            if tap.at in ATTENDED:
                wanted.setdefault(tap.module, {})[tap.at] = None
        for module, parts in wanted.items():
            for part in parts:
                names = [n for n, tap in self._taps.items() if tap.module is module and tap.at == part]
                parts[part] = self._teller(names)
        return Attending(wanted) if wanted else None

    @contextmanager
    def watching(self) -> Iterator[Watcher]:
        """Hooks on the layers inside the block, gone after it."""
        with ExitStack() as stack:
            if self._taps:
                stack.enter_context(uncompiled())
                stack.enter_context(_without_fast_paths())
            for name, tap in self._taps.items():
                if tap.at == "input":
                    handle = tap.module.register_forward_pre_hook(self._taker(name), with_kwargs=True)
                elif tap.at == "output":
                    handle = tap.module.register_forward_hook(self._keeper(name))
                else:
                    continue
                stack.callback(handle.remove)
            if self._attending is not None:
                for module, parts in self._attending.wanted.items():
                    stack.enter_context(self._overheard(module, parts))
            yield self

    @contextmanager
    def _overheard(self, module: nn.Module, parts: Collection[str]) -> Iterator[None]:
        """An attention whose runs are known of, and which does not scale its q before it is seen."""
        attending, fused = self._attending, vars(module).get("fused_attn")
        begin = module.register_forward_pre_hook(lambda module, inputs: attending.begins(module))
        end = module.register_forward_hook(lambda module, inputs, output: attending.ends(module), prepend=True)
        try:
            if fused is False and not {"q", "k"}.isdisjoint(parts):
                module.fused_attn = True
            yield
        finally:
            begin.remove(), end.remove()
            if fused is not None:
                module.fused_attn = fused

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        """What is seen when the model is given the images, or other inputs, x (n, …)."""
        self._seen, self.runs, self._n = {IMAGES: x} if IMAGES in self.names else {}, {}, len(x)
        self._size = size_seen(self.model, x)
        if self._waiting() or self._to_the_end:
            try:
                logits = self._answer(x)
                if LOGITS in self.names:
                    check_logits(logits, len(x))
                    self._seen[LOGITS] = logits
            except _Enough:
                pass
        missing = self._waiting()
        self.names = tuple(name for name in self.names if name not in missing or name not in self._optional)
        if missing := self._waiting():
            fused = " " + _FUSED if any(_is_fused(self._around[name]) for name in missing) else ""
            unheard = "" if fused or not all(self._taps[name].at in ATTENDED for name in missing) else _UNHEARD
            raise ValueError(f"the model's forward pass never reaches {', '.join(missing)}{fused}{unheard}")
        return self._seen

    def is_batch_norm(self, name: str) -> bool:
        """Whether what is seen under a name is the input of a BatchNorm."""
        return name.startswith(INPUT_OF) and isinstance(self._taps[name].module, _BatchNorm)

    def site(self, name: str) -> Site | None:
        """The site that a name stands for, as it is for the images seen last; None where it is a layer's."""
        site = self._taps[name].site if name in self._taps else None
        return site if site is None or name not in self._seen else seated(site, self._seen[name], self._size)

    def standing(self, name: str) -> tuple[Tensor, Site | None]:
        """What was seen last under a name, and how it lies: at a site as it says, and at a layer as at the site that
        listens there or as the tokens of its block; None where that is not known.

        Raises:
            ValueError: what a layer gives does not have the inputs first, or may be read in two ways.
        """
        value, site = self._seen[name], self.site(name)
        if site is not None or name in (IMAGES, LOGITS):
            return value, site
        place = self.place(name)
        if place is not None and (value := lying_as(value, place, self._n, name)) is not None:
            return value, seated(place, value, self._size)
        value = self._seen[name]
        if value.ndim == 0 or len(value) != self._n:
            raise ValueError(
                f"{name} is of shape {tuple(value.shape)} for {self._n} inputs, and its first dimension must be the "
                "inputs: take a site of recording.sites(model), or another layer"
            )
        return value, None

    def heard_at(self, name: str) -> Site | None:
        """The site that listens to the layer of this name; None of a layer's later runs in a pass."""
        tap = self._taps[name]
        return site_at(found_in(self.model), tap.module, tap.at) if tap.run == 1 else None

    def place(self, name: str) -> Site | None:
        """The site as at which what stands under a layer's name lies."""
        if name not in self._places:
            tap = self._taps[name]
            self._places[name] = site_of_layer(self.model, tap.module, tap.at) if tap.site is None else tap.site
        return self._places[name]

    def _answer(self, x: Tensor) -> object:
        """What the model, or what is run in its place, says to the inputs."""
        with ExitStack() as stack:
            stack.enter_context(taking(x))
            if self._attending is not None:
                self._attending.forget()
                stack.enter_context(self._attending)
            if self._run is None and x.is_floating_point():
                return ask(_on_one_device(self.model), x)
            run = self._run or _on_one_device(self.model)
            if x.is_floating_point():
                x = x.to(next((p.dtype for p in self.model.parameters() if p.is_floating_point()), x.dtype))
            return ask(lambda inputs: run(inputs), x)  # whole numbers, such as tokens, keep their precision

    def _waiting(self) -> list[str]:
        return [name for name in self.names if name not in self._seen]

    def _keeper(self, name: str):
        return lambda module, inputs, output: self._note(name, output)

    def _taker(self, name: str):
        return lambda module, inputs, named: self._note(name, [*inputs, *named.values()][0])

    def _teller(self, names: Sequence[str]):
        return lambda part, value: [self._note(name, value) for name in names]

    def _note(self, name: str, value: object) -> None:
        tap = self._taps[name]
        self.runs[name] = self.runs.get(name, 0) + 1
        if tap.site is not None:
            value = arranged(value, tap.site, self._n)
        elif not isinstance(value, Tensor):
            raise ValueError(f"{name} gives {type(value).__name__}, not one tensor: choose a layer inside it")
        if name in self._seen or self.runs[name] != tap.run:
            return
        # What comes next may work in place, as a ReLU or a residual sum does, and what is given may be a parameter.
        self._seen[name] = value.clone()
        if not self._to_the_end and LOGITS not in self.names and not self._waiting():
            raise _Enough


def size_seen(model: nn.Module, x: Tensor) -> tuple[int, int] | None:
    """Height and width of the images that a network is given, after the resizing of a ``Classifier`` around it; None of
    other inputs."""
    if x.ndim != 4 or min(x.shape[-2:]) < 2:
        return None
    part: nn.Module | None = model
    while part is not None:
        if isinstance(part, Classifier) and part.size is not None:
            return part.size
        part = inside(part)
    return tuple(x.shape[-2:])


def seated(site: Site, values: Tensor, size: tuple[int, int] | None) -> Site:
    """A site with the prefix and grid of what was recorded there, of images of a size."""
    axis = {"tokens": 1, "heads": 2}.get(site.form)
    lies = axis is not None and values.ndim == axis + 2
    return site.placed(values.shape[axis], size) if lies else site


def uncompiled() -> AbstractContextManager:
    """Whatever is compiled runs as it was before, inside the block."""
    never = "torch._dynamo" not in sys.modules  # the compiler, which takes seconds to load
    return nullcontext() if never else torch.compiler.set_stance("force_eager")


def _on_one_device(model: nn.Module) -> nn.Module:
    """Copies of a ``DataParallel``'s network on several devices would each be seen with a part of the images."""
    return model.module if isinstance(model, nn.DataParallel) else model


@contextmanager
def _without_fast_paths() -> Iterator[None]:
    """PyTorch's transformers run module by module inside the block."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _is_fused(attention: nn.Module | None) -> bool:
    """Whether it is one of timm's attentions that computes its map inside of one operation."""
    return bool(getattr(attention, "fused_attn", False))
