"""What tokens of a Vision Transformer do: class tokens that are cut off, patches that are dropped, single ones read.

The experiments of Ghiasi et al. 2022, section 4 and table 1, on networks as they are: blocks are called as they stand,
on fewer tokens or on others. Depth is counted in blocks that have been run, 0 for none. Class tokens are those that
stand before the patches and are no registers; ``hold="mean"`` is ours: a class token that says nothing of the image but
is still there to be looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from thesis_kit.asking import Model
from thesis_kit.checks import check_count, check_finite, check_images, check_logits, choose
from thesis_kit.features.stacks import Stack, asked, check_depth, one_pass, stack, stack_for, with_class
from thesis_kit.recording.batches import record, sites
from thesis_kit.recording.streaming import stream

__all__ = [
    "Stack", "class_logits", "class_means", "drop_patches", "isolate_cls", "patch_logits", "similarity", "stack",
    "token_norms", "within_share",
]
HOLDS = ("alone", "mean")


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
        means: for "mean" alone, of ``class_means`` of this network; of ``x`` itself unless given.
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
    known = with_class(model, x)
    check_depth(blocks, known)
    if means is not None and hold == "alone":
        raise ValueError('means are for hold="mean"; a class token that goes alone has none')
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

    return asked(model, x, known, dict.fromkeys(range(blocks), separated), batch_size)


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
    known = with_class(model, x)
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
    known = with_class(model, x)
    check_depth(after, known)

    def lonely(place: int, block: Callable) -> Callable:
        return lambda tokens: block(tokens[:, : known.classes])

    return asked(model, x, known, {after: lonely} if after < len(known) else {}, batch_size)


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
    known = with_class(model, x)
    check_depth(after, known)
    skipped = dict.fromkeys(range(after, len(known)), lambda place, block: lambda tokens: tokens)
    return asked(model, x, known, skipped, batch_size)


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
    known = with_class(model, x)
    after = len(known) if after is None else after
    check_depth(after, known)
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
        logits = one_pass(network, given[0][:1], known, instead)
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
    known = stack_for(model, x)
    parts = [record(model, some, known.names) for some in x.split(batch_size)]
    return torch.stack([torch.cat([part[name].norm(dim=2) for part in parts]) for name in known.names])


def _by_depth(model: Model, x: Tensor, of: Callable[[Tensor, Tensor], Tensor], batch_size: int) -> Tensor:
    """The mean over images of a number that patches (n, p, d) and their mean (d,) over all images give, by depth."""
    check_images(x)
    known = stack_for(model, x)
    means = stream(model, x, known.names, batch_size=batch_size)
    sums = torch.zeros(len(known.names), dtype=torch.float64)
    for some in x.split(batch_size):
        for depth, tokens in enumerate(record(model, some, known.names).values()):
            patches = tokens[:, known.prefix :].double()
            sums[depth] += of(patches, means[known.names[depth]].mean.to(patches)).sum().cpu()
    return sums / len(x)


def _parted(tokens: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    return tokens[:, :classes], tokens[:, classes:]


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
