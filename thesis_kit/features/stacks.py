"""The blocks of a Vision Transformer as they are asked of tokens: which they are, and a pass where some work otherwise.

A network is taken where its tokens go from block to block in a row, and, where class tokens are meant, where its head
reads these and nothing else; of both one looks at a pass, for networks do not always tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from thesis_kit.asking import Model, as_module, ask, evaluating, plain
from thesis_kit.checks import check_count, check_images, check_logits
from thesis_kit.recording.batches import check_inputs, recorder, sites
from thesis_kit.recording.watching import uncompiled

_POOLS = ("token", "tok", "")  # what timm and open_clip call a head that reads the class token


@dataclass(frozen=True)
class Stack:
    """The blocks of a ViT: ``names`` of the sites at depth 0 … L, its ``blocks``, ``classes`` tokens, ``prefix``."""

    names: tuple[str, ...]
    blocks: tuple[nn.Module, ...]
    classes: int
    prefix: int

    def __len__(self) -> int:
        return len(self.blocks)


def stack(model: Model) -> Stack:
    """The blocks of a network whose tokens lie in a row.

    Raises:
        ValueError: there are none, or tokens do not come as (n, t, d).

    Examples:
        >>> vit = tk.zoo.load("vit-scenes64")
        >>> len(tk.features.tokens.stack(vit).blocks)
        6
    """
    found = sites(model)
    rows = [site for site in found.values() if site.kind == "residual" and site.form == "tokens"]
    first = next((site for site in found.values() if site.kind == "tokens"), None)
    windows = any("in windows" in site.refusal for site in found.refused.values())
    if first is None or not rows or windows:
        raise ValueError(
            f"{type(found.network).__name__} has no row of tokens that goes from block to block: take a Vision "
            "Transformer"
        )
    if not first.batch_first:
        raise ValueError(f"tokens of {type(found.network).__name__} come as (t, n, d): build it with batch_first=True")
    registers = getattr(found.network, "num_reg_tokens", 0) or 0
    blocks = tuple(found.modules[site.module] for site in rows)
    return Stack((first.name, *(site.name for site in rows)), blocks, first.prefix - registers, first.prefix)


def stack_for(model: Model, x: Tensor) -> Stack:
    """The blocks of a network, if class tokens and registers are there from the first block to the last."""
    check_images(x), check_inputs(as_module(model), x)
    known = stack(model)
    with recorder(as_module(model), known.names) as watcher:
        watcher(plain(x[:1]))
        prefixes = [watcher.site(name).prefix for name in known.names]
    if len(set(prefixes)) == 1 and prefixes[0] > known.classes:
        known = replace(known, prefix=prefixes[0])  # registers of which the network does not tell
    if set(prefixes) != {known.prefix}:
        raise ValueError(
            f"{type(sites(model).network).__name__} says that it has {known.prefix} class tokens and registers. It has "
            f"{prefixes[0]} before its first block and {prefixes[-1]} behind its last: what tokens do from block to "
            "block is asked of networks in which they stay"
        )
    return known


def with_class(model: Model, x: Tensor) -> Stack:
    """The blocks of a network whose head reads class tokens."""
    known, network = stack_for(model, x), sites(model).network
    pool = getattr(network, "global_pool", getattr(network, "pool_type", "token"))
    if known.classes < 1:
        raise ValueError(f"{type(network).__name__} has no class token: similarity and within_share need none")
    if pool not in _POOLS or getattr(network, "attn_pool", None) is not None:
        raise ValueError(
            f"the head of {type(network).__name__} reads all patches ({pool or 'map'}), not the class token: what the "
            "class token does cannot be read there"
        )
    if not _read_alone(model, x[:1], known):
        raise ValueError(
            f"the head of {type(network).__name__} does not read the first token alone, as which a class token is "
            "known here: change what stands elsewhere behind the last block, and the logits change"
        )
    return known


def _read_alone(model: Model, x: Tensor, known: Stack) -> bool:
    """Whether the logits hang on no token behind the last block but the class tokens."""

    def elsewhere(place: int, block: Callable) -> Callable:
        def changed(tokens: Tensor) -> Tensor:
            given = block(tokens).clone()
            given[:, known.classes :] = given[:, known.classes :].roll(1, dims=-1) + 1
            return given

        return changed

    whole, others = (asked(model, x, known, changes, 1) for changes in ({}, {len(known) - 1: elsewhere}))
    return torch.allclose(whole, others, rtol=1e-3, atol=1e-5)


Change = Callable[[int, Callable], Callable]


def asked(model: Model, x: Tensor, known: Stack, changes: dict[int, Change], batch_size: int) -> Tensor:
    """Logits of the model while some of its blocks work otherwise."""
    model = as_module(model)
    check_count(batch_size, what="batch_size")
    read = []
    for some in plain(x).split(batch_size):
        read.append(one_pass(model, some, known, changes))
        check_logits(read[-1], len(some))
    return torch.cat(read)


def one_pass(model: nn.Module, x: Tensor, known: Stack, changes: dict[int, Change]) -> Tensor:
    """One pass."""
    with torch.no_grad(), evaluating(model), uncompiled(), _changed(known, changes):
        return ask(model, x)


@contextmanager
def _changed(known: Stack, changes: dict[int, Change]) -> Iterator[None]:
    """Blocks with another forward inside the block, and with their own after it."""
    own = {place: vars(known.blocks[place]).get("forward") for place in changes}
    try:
        for place, change in changes.items():
            block = known.blocks[place]
            block.forward = _tokens_alone(change(place, block.forward), type(block).__name__)
        yield
    finally:
        for place, forward in own.items():
            if forward is None:
                vars(known.blocks[place]).pop("forward", None)
            else:
                known.blocks[place].forward = forward


def _tokens_alone(change: Callable[[Tensor], Tensor], kind: str) -> Callable:
    """A forward that refuses whatever belongs to the tokens and comes beside them."""

    def forward(tokens: Tensor, *others: object, **named: object) -> Tensor:
        if any(isinstance(other, Tensor) for other in (*others, *named.values())):
            raise ValueError(
                f"{kind} is given more than its tokens, such as rotary positions or a mask, which belong to all of "
                "them: tokens cannot be taken apart here"
            )
        return change(tokens)

    return forward


def check_depth(depth: int, known: Stack) -> None:
    check_count(depth, what="the number of blocks", least=0)
    if depth > len(known):
        raise ValueError(f"the network has {len(known)} blocks, got {depth}: give at most as many")
