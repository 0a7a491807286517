"""Where a classifier's features end and its head begins, and its blocks in order of depth.

What transfer and feature studies need to know of a network, for ``nn.Sequential`` networks such as the book's own and
for timm's, whose own account of themselves (``get_classifier``, ``group_matcher``) is followed.
"""

from __future__ import annotations

import numbers
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from thesis_kit.asking import ask
from thesis_kit.checks import check_count, check_images, check_same_device
from thesis_kit.models.copying import copied
from thesis_kit.models.seen import inside


def head(model: nn.Module) -> nn.Linear:
    """The last linear layer, which turns features into logits.

    Args:
        model: a ``Classifier``, or a network alone: an ``nn.Sequential`` that ends in ``nn.Linear``, or a timm model
            whose classifier is one.

    Raises:
        ValueError: the network is of another kind, or has no linear head.

    Examples:
        >>> tk.models.anatomy.head(model).out_features
        10
    """
    network = found = _network(model)
    if hasattr(network, "get_classifier"):
        found = network.get_classifier()
    while isinstance(found, nn.Sequential) and len(found):
        found = found[-1]
    if not isinstance(found, nn.Linear):
        raise ValueError(
            f"found no linear head in {type(network).__name__}: take a model of models.build, an nn.Sequential that "
            "ends in nn.Linear, or a timm model whose get_classifier() is one"
        )
    return found


@contextmanager
def head_inputs(model: nn.Module) -> Iterator[list[Tensor]]:
    """Inside the block, each forward pass of the model appends the features (n, d) that reach its head.

    Features and logits then come from one pass, with one graph. The hook is gone after the block.

    Examples:
        >>> with tk.models.anatomy.head_inputs(model) as seen:
        ...     logits = model(digits.x)
        >>> [tuple(features.shape) for features in seen]
        [(4, 64)]
    """
    seen: list[Tensor] = []
    handle = head(model).register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        handle.remove()


def features(model: nn.Module, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
    """Penultimate features (n, d) of images (n, c, h, w) in [0, 1]: what the head is given, in the model's mode.

    Raises:
        ValueError, TypeError: unfit images, or a network without a linear head that sees one vector an image.

    Examples:
        >>> tk.models.anatomy.features(model, digits.x).shape
        torch.Size([4, 64])
    """
    check_same_device(model, x)
    check_images(x)
    with head_inputs(model) as seen:
        ask(model, x)
    if len(seen) != 1 or seen[0].ndim != 2:
        raise ValueError(
            f"the head was given {[tuple(z.shape) for z in seen]} in one pass: features need one vector an image"
        )
    return seen[0]


def replace_head(model: nn.Module, n_classes: int, *, seed: int) -> nn.Module:
    """A copy of the model that shares nothing with it, with a freshly drawn linear head for ``n_classes`` classes.

    Args:
        model: as for ``head``; left as it is.
        n_classes: number of logits, at least two.
        seed: of the new head's weights; the caller's random state is left as it was.

    Raises:
        ValueError: a network without a linear head, or one that cannot be copied.

    Examples:
        >>> network = tk.models.anatomy.replace_head(model, n_classes=3, seed=0)
        >>> network(digits.x).shape
        torch.Size([4, 3])
    """
    check_count(n_classes, what="n_classes", least=2)
    model = copied(model)
    old = head(model)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        new = nn.Linear(old.in_features, n_classes, bias=old.bias is not None)  # on the CPU: alike on every device
    parent, _, name = _name_of(model, old).rpartition(".")
    setattr(model.get_submodule(parent), name, new.to(old.weight).train(old.training))
    if hasattr(_network(model), "num_classes"):
        _network(model).num_classes = n_classes
    return model


def blocks(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The network's blocks from the images to the head, each under its name in ``model.named_modules()``.

    In an ``nn.Sequential``: the children that hold a convolution, which are the stem and the residual blocks of the
    book's residual networks, and the convolutions of ``small_cnn``. In a timm model: what its ``group_matcher`` calls a
    block, such as ``layer1.0`` in a ResNet, ``blocks.0`` in a ViT or Mixer, ``stages.0.blocks.0`` in a ConvNeXt.

    Raises:
        ValueError: the network is of another kind.

    Examples:
        >>> [name for name, _ in tk.models.anatomy.blocks(model)]
        ['network.0', 'network.2', 'network.4']
    """
    network = _network(model)
    if hasattr(network, "group_matcher"):
        found = _timm_blocks(network)
    elif isinstance(network, nn.Sequential):
        found = [child for child in network if any(isinstance(part, nn.Conv2d) for part in child.modules())]
    else:
        found = []
    if not found:
        raise ValueError(
            f"found no blocks in {type(network).__name__}: take a model of models.build, an nn.Sequential with "
            "convolutions, or a timm model whose group_matcher numbers its blocks"
        )
    return [(_name_of(model, block), block) for block in found]


def split(model: nn.Module, k: int) -> tuple[list[nn.Module | nn.Parameter], list[nn.Module]]:
    """What stays and what goes when the head and the last ``k`` blocks are replaced.

    Layers outside the blocks go with the block that follows them, those after the last block (a final normalization)
    with the last. So k = 0 is the head alone, and k = the number of blocks is everything.

    Returns:
        The modules and single parameters before the cut, and the modules behind it, in order of registration.

    Raises:
        ValueError: k is negative, no whole number, or larger than the number of blocks.

    Examples:
        >>> kept, renewed = tk.models.anatomy.split(model, k=1)
        >>> len(kept), len(renewed)
        (3, 8)
    """
    depth, modules = [block for _, block in blocks(model)], list(model.modules())
    if isinstance(k, bool) or not isinstance(k, numbers.Integral) or not 0 <= k <= len(depth):
        raise ValueError(f"k must be a whole number from 0 to {len(depth)}, the model's number of blocks, got {k!r}")
    behind = [head(model)]
    if k > 0:
        kept = set(depth[-k - 1].modules()) if k < len(depth) else set()
        cut = max((place for place, module in enumerate(modules) if module in kept), default=-1)
        behind = modules[cut + 1 :]
    return _without(modules, behind), behind


def _without(modules: list[nn.Module], behind: list[nn.Module]) -> list[nn.Module | nn.Parameter]:
    """The other modules; of one that holds both sorts, the parameters that it owns itself."""
    before: list[nn.Module | nn.Parameter] = []
    for module in modules:
        if module in behind:
            continue
        holds_both = not set(module.modules()).isdisjoint(behind)
        before.extend(module.parameters(recurse=False) if holds_both else [module])
    return before


def _network(model: nn.Module) -> nn.Module:
    while (wrapped := inside(model)) is not None:
        model = wrapped
    return model


def _name_of(model: nn.Module, part: nn.Module) -> str:
    return next(name for name, module in model.named_modules() if module is part)


def _timm_blocks(network: nn.Module) -> list[nn.Module]:
    """Modules whose whole name matches a pattern that numbers blocks; other patterns name layers between them."""
    matcher = network.group_matcher(coarse=False)
    if not isinstance(matcher, dict):
        return []
    stem, numbered = (
        [pattern for pattern, place in ([(spec, None)] if isinstance(spec, str) else spec) if place is None]
        for spec in (matcher.get("stem", []), matcher.get("blocks", []))
    )
    return [
        module
        for name, module in network.named_modules()
        if any(re.fullmatch(pattern.removeprefix("^"), name) for pattern in numbered)
        and not any(re.match(pattern, name) for pattern in stem)
        and next(module.parameters(), None) is not None
    ]
