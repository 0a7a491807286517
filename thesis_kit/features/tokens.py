"""What tokens of a Vision Transformer do: class tokens that are cut off, patches that are dropped, single ones read.

The experiments of Ghiasi et al. 2022, section 4 and table 1, on networks as they are: blocks are called as they stand,
on fewer tokens or on others. Depth is counted in blocks that have been run, 0 for none. Class tokens are those that
stand before the patches and are no registers; ``hold="mean"`` is ours: a class token that says nothing of the image but
is still there to be looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from thesis_kit.asking import Model, as_module, ask, evaluating, plain
from thesis_kit.checks import check_count, check_finite, check_images, check_logits, choose
from thesis_kit.recording.batches import check_inputs, record, recorder, sites
from thesis_kit.recording.streaming import stream
from thesis_kit.recording.watching import uncompiled

HOLDS = ("alone", "mean")
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


def isolate_cls(
    model: Model, x: Float[Tensor, "n c h w"], blocks: int, *, hold: str = "alone",
    means: Float[Tensor, "depths classes d"] | None = None, batch_size: int = 64,
) -> Float[Tensor, "n k"]:  # fmt: skip
    """Logits where the class token sees no patch in the first ``blocks`` blocks, and joins them then.

    Args:
        model: pixels in [0, 1] to logits, a ViT whose head reads its class token.
        x: images.
        blocks: 0, which is the whole network as it is, to all L.
        hold: "alone", the class token goes through the blocks by itself and patches by themselves, as published; or
            "mean", patches see the class token's mean over a data set, as deep as they are, and it sees nothing.
        means: for "mean", of ``class_means`` of this network; of ``x`` itself unless given.
        batch_size: images a pass.

    Raises:
        ValueError: a network without class token, or whose head does not read it; a depth that it does not have; blocks
            that are given more than tokens, such as rotary positions.

    Examples:
        >>> vit = tk.zoo.load("vit-scenes64")
        >>> tk.features.tokens.isolate_cls(vit, torch.rand(1, 3, 64, 64), blocks=2).shape
        torch.Size([1, 16])
    """
    choose(hold, HOLDS, "way to hold the class token")
    known = _with_class(model, x)
    _check_depth(blocks, known)
    if means is not None:
        _check_means(model, x, means, known)
    elif hold == "mean":
        means = class_means(model, x, batch_size=batch_size)

    def separated(place: int, block: Callable) -> Callable:
        def alone(tokens: Tensor) -> Tensor:
            return torch.cat([block(part) for part in _parted(tokens, known.classes)], dim=1)

        def held(tokens: Tensor) -> Tensor:
            before, after = (mean.to(tokens).expand(len(tokens), -1, -1) for mean in means[place : place + 2])
            given = torch.cat([before, tokens[:, known.classes :]], dim=1)
            return torch.cat([after, block(given)[:, known.classes :]], dim=1)

        return alone if hold == "alone" else held

    return _asked(model, x, known, dict.fromkeys(range(blocks), separated), batch_size)


def class_means(
    model: Model, x: Float[Tensor, "n c h w"], *, batch_size: int = 64
) -> Float[Tensor, "depths classes d"]:
    """The mean class token over images at every depth, 0 to L: (L + 1, class tokens, d).

    Examples:
        >>> vit = tk.zoo.load("vit-scenes64")
        >>> tk.features.tokens.class_means(vit, torch.rand(1, 3, 64, 64)).shape
        torch.Size([7, 1, 96])
    """
    check_images(x)
    known = _with_class(model, x)
    found = stream(
        model, x, known.names, pool=lambda tokens: tokens[:, : known.classes].flatten(1), batch_size=batch_size
    )
    return torch.stack([found[name].mean for name in known.names]).unflatten(1, (known.classes, -1)).float()


def drop_patches(
    model: Model, x: Float[Tensor, "n c h w"], after: int, *, batch_size: int = 64
) -> Float[Tensor, "n k"]:
    """Logits where the class token goes on alone after ``after`` blocks; L is the whole network as it is.

    A head that was trained on class tokens of whole runs sees others here, so that what it reads is a lower bound.

    Raises:
        ValueError: as ``isolate_cls``.

    Examples:
        >>> vit = tk.zoo.load("vit-scenes64")
        >>> tk.features.tokens.drop_patches(vit, torch.rand(1, 3, 64, 64), after=2).shape
        torch.Size([1, 16])
    """
    known = _with_class(model, x)
    _check_depth(after, known)

    def lonely(place: int, block: Callable) -> Callable:
        return lambda tokens: block(tokens[:, : known.classes])

    return _asked(model, x, known, {after: lonely} if after < len(known) else {}, batch_size)


def class_logits(
    model: Model, x: Float[Tensor, "n c h w"], after: int, *, batch_size: int = 64
) -> Float[Tensor, "n k"]:
    """What the head reads from the class token after ``after`` blocks, the other blocks skipped.

    Raises:
        ValueError: as ``isolate_cls``.

    Examples:
        >>> vit = tk.zoo.load("vit-scenes64")
        >>> tk.features.tokens.class_logits(vit, torch.rand(1, 3, 64, 64), after=2).shape
        torch.Size([1, 16])
    """
    known = _with_class(model, x)
    _check_depth(after, known)
    skipped = dict.fromkeys(range(after, len(known)), lambda place, block: lambda tokens: tokens)
    return _asked(model, x, known, skipped, batch_size)


def patch_logits(
    model: Model, x: Float[Tensor, "n c h w"], after: int | None = None, *, batch_size: int = 64
) -> Float[Tensor, "n p k"]:
    """What the head reads from every single patch in the class token's place, after ``after`` blocks or, as is, all.

    Final norm and head are the network's own, trained on the class token; the blocks left out are skipped.

    Raises:
        ValueError: as ``isolate_cls``.

    Examples:
        >>> vit = tk.zoo.load("vit-scenes64")
        >>> tk.features.tokens.patch_logits(vit, torch.rand(1, 3, 64, 64)).shape
        torch.Size([1, 64, 16])
    """
    known = _with_class(model, x)
    after = len(known) if after is None else after
    _check_depth(after, known)
    check_images(x), check_count(batch_size, what="batch_size")
    network, name = sites(model).network, known.names[after]
    read = []
    for some in x.split(batch_size):
        with _first_inputs(network) as given:
            tokens = record(model, some, name)[name]
        patches = tokens[:, known.prefix :]
        places = patches.flatten(0, 1)[:, None].expand(-1, known.classes, -1)  # (n · p, classes, d)
        instead = dict.fromkeys(range(len(known)), lambda place, block, places=places: lambda tokens: places)
        # The stem runs on one image, whatever it is: what the blocks give in place of its tokens is all that counts.
        logits = _run(network, given[0][:1], known, instead)
        check_logits(logits, len(places))
        read.append(logits.unflatten(0, patches.shape[:2]))
    return torch.cat(read)


@contextmanager
def _first_inputs(network: nn.Module) -> Iterator[list[Tensor]]:
    """What a network is given inside the block, pass by pass."""
    given: list[Tensor] = []
    handle = network.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0].detach().clone()))
    try:
        yield given
    finally:
        handle.remove()


def similarity(model: Model, x: Float[Tensor, "n c h w"], *, batch_size: int = 64) -> Float[Tensor, " depths"]:
    """How alike patches of an image are at depth 0 … L: mean cosine of pairs, the mean patch of all taken off.

    Examples:
        >>> vit = tk.zoo.load("vit-scenes64")
        >>> tk.features.tokens.similarity(vit, torch.rand(2, 3, 64, 64)).shape
        torch.Size([7])
    """

    def of(tokens: Tensor, mean: Tensor) -> Tensor:
        directions = nn.functional.normalize(tokens - mean, dim=2)
        count = tokens.shape[1]
        return (directions.sum(dim=1).square().sum(dim=1) - count) / (count * (count - 1))

    return _by_depth(model, x, of, batch_size)


def within_share(model: Model, x: Float[Tensor, "n c h w"], *, batch_size: int = 64) -> Float[Tensor, " depths"]:
    """The share of patches' variance that lies within images at depth 0 … L; the rest lies between them.

    Examples:
        >>> vit = tk.zoo.load("vit-scenes64")
        >>> tk.features.tokens.within_share(vit, torch.rand(2, 3, 64, 64)).shape
        torch.Size([7])
    """

    def inside(tokens: Tensor, mean: Tensor) -> Tensor:
        return (tokens - tokens.mean(dim=1, keepdim=True)).square().sum(dim=2).mean(dim=1)

    def whole(tokens: Tensor, mean: Tensor) -> Tensor:
        return (tokens - mean).square().sum(dim=2).mean(dim=1)

    return _by_depth(model, x, inside, batch_size) / _by_depth(model, x, whole, batch_size)


def token_norms(model: Model, x: Float[Tensor, "n c h w"], *, batch_size: int = 64) -> Float[Tensor, "depths n t"]:
    """The length of every token at depth 0 … L, prefix tokens first: few very long patches serve as registers (Darcet
    et al., ICLR 2024).

    Examples:
        >>> vit = tk.zoo.load("vit-scenes64")
        >>> tk.features.tokens.token_norms(vit, torch.rand(1, 3, 64, 64)).shape
        torch.Size([7, 1, 65])
    """
    check_count(batch_size, what="batch_size")
    known = _stack_of(model, x)
    parts = [record(model, some, known.names) for some in x.split(batch_size)]
    return torch.stack([torch.cat([part[name].norm(dim=2) for part in parts]) for name in known.names])


def _by_depth(model: Model, x: Tensor, of: Callable[[Tensor, Tensor], Tensor], batch_size: int) -> Tensor:
    """The mean over images of a number that patches (n, p, d) and their mean (d,) over all images give, by depth."""
    check_images(x)
    known = _stack_of(model, x)
    means = stream(model, x, known.names, batch_size=batch_size)
    sums = torch.zeros(len(known.names), dtype=torch.float64)
    for some in x.split(batch_size):
        for depth, tokens in enumerate(record(model, some, known.names).values()):
            patches = tokens[:, known.prefix :].double()
            sums[depth] += of(patches, means[known.names[depth]].mean.to(patches)).sum().cpu()
    return sums / len(x)


Change = Callable[[int, Callable], Callable]


def _asked(model: Model, x: Tensor, known: Stack, changes: dict[int, Change], batch_size: int) -> Tensor:
    """Logits of the model while some of its blocks work otherwise."""
    model = as_module(model)
    check_count(batch_size, what="batch_size")
    read = []
    for some in plain(x).split(batch_size):
        read.append(_run(model, some, known, changes))
        check_logits(read[-1], len(some))
    return torch.cat(read)


def _run(model: nn.Module, x: Tensor, known: Stack, changes: dict[int, Change]) -> Tensor:
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


def _parted(tokens: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    return tokens[:, :classes], tokens[:, classes:]


def _stack_of(model: Model, x: Tensor) -> Stack:
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


def _with_class(model: Model, x: Tensor) -> Stack:
    """The blocks of a network whose head reads class tokens."""
    known, network = _stack_of(model, x), sites(model).network
    pool = getattr(network, "global_pool", getattr(network, "pool_type", "token"))
    if known.classes < 1:
        raise ValueError(f"{type(network).__name__} has no class token: similarity and within_share need none")
    if pool not in _POOLS or getattr(network, "attn_pool", None) is not None:
        raise ValueError(
            f"the head of {type(network).__name__} reads all patches ({pool or 'map'}), not the class token: what the "
            "class token does cannot be read there"
        )
    if known.classes and not _read_alone(model, x[:1], known):
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

    whole, others = (_asked(model, x, known, changes, 1) for changes in ({}, {len(known) - 1: elsewhere}))
    return torch.allclose(whole, others, rtol=1e-3, atol=1e-5)


def _check_means(model: Model, x: Tensor, means: Tensor, known: Stack) -> None:
    """Require class tokens' means as ``class_means`` gives them of this network."""
    form = "(depths, class tokens, d)"
    check_finite(means, form, what="means")
    width = record(model, x[:1], known.names[0])[known.names[0]].shape[2]
    if means.shape != (len(known.names), known.classes, width):
        raise ValueError(
            f"means must have shape {(len(known.names), known.classes, width)}, {form}, for this network, got "
            f"{tuple(means.shape)}: take those that class_means gives of it"
        )


def _check_depth(depth: int, known: Stack) -> None:
    check_count(depth, what="the number of blocks", least=0)
    if depth > len(known):
        raise ValueError(f"the network has {len(known)} blocks, got {depth}: give at most as many")
