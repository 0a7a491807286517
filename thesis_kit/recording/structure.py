"""What can be told of a network's parts without running it: blocks, attentions, two-layer perceptrons, token order.

Libraries agree on no class and on no names, but on structure: an attention has heads and projections, a perceptron
leads back to the width it started from, a block is an element of a list. Nothing here knows a model by its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from torch import nn

Modules = Mapping[str, nn.Module]

_HEADS = ("num_heads", "n_head", "n_heads", "num_attention_heads", "heads")
_LISTS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_SQUEEZES = re.compile(r"squeeze|^(effective)?se(module|layer|block|unit)?(cl)?$", re.IGNORECASE)
_ASIDE = re.compile(r"(downsample|shortcut|skip|identity)", re.IGNORECASE)
_CLASS_TOKENS = ("class_token", "cls_token", "class_embedding")


def parent_of(name: str) -> str:
    """The name of the module that holds this one; "" for the network itself."""
    return name.rpartition(".")[0]


def heads_of(module: nn.Module) -> int | None:
    """How many heads a module says it has."""
    counts = (getattr(module, name, None) for name in _HEADS)
    return next((count for count in counts if isinstance(count, int) and not isinstance(count, bool)), None)


def second_layer(module: nn.Module) -> str | None:
    """The child that leads back to the width where a two-layer perceptron began; None of anything else.

    Its first layer may be in two parts or twice as wide (GLU and SwiGLU, which multiply the halves).
    """
    if heads_of(module) is not None or _SQUEEZES.search(type(module).__name__):
        return None
    linear = [(name, _widths(child)) for name, child in module.named_children() if _widths(child) is not None]
    if not 2 <= len(linear) <= 3:
        return None
    name, (last_in, last_out) = linear[-1]
    fits = (first_in == last_out and first_out in (last_in, 2 * last_in) for _, (first_in, first_out) in linear[:-1])
    return name if any(fits) else None


def _widths(module: nn.Module) -> tuple[int, int] | None:
    """Inputs and outputs of a linear layer, or of a convolution of one pixel that is used as one."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    pointwise = isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1
    return (module.in_channels, module.out_channels) if pointwise else None


def perceptrons(modules: Modules) -> dict[str, str]:
    """Two-layer perceptrons: name -> name of the second layer. Bottlenecks of convolutions are none."""
    found = {}
    for name, module in modules.items():
        second = second_layer(module)
        if second is None:
            continue
        layers = [child for child in module.children() if _widths(child) is not None]
        by_pixel = isinstance(layers[-1], nn.Conv2d)
        if by_pixel and (_widths(layers[-1])[0] <= _widths(layers[-1])[1] or _mixes_pixels(module)):
            continue
        found[name] = f"{name}.{second}".lstrip(".")
    return found


def _mixes_pixels(module: nn.Module) -> bool:
    """Whether one of the convolutions directly in it sees more than one pixel."""
    return any(isinstance(child, _CONVOLUTIONS) and set(child.kernel_size) != {1} for child in module.children())


def attentions(modules: Modules, perceptrons: Mapping[str, str]) -> list[str]:
    """Names of the attentions: modules with heads and projections of their own, and with no perceptron in them."""
    found: list[str] = []
    for name, module in modules.items():
        if any(lies_in(name, outer) for outer in found) or any(lies_in(inner, name) for inner in perceptrons):
            continue
        projects = any(isinstance(c, nn.Linear | nn.Conv2d | nn.MultiheadAttention) for c in module.children())
        projects = projects or "in_proj_weight" in dict(module.named_parameters(recurse=False))
        if isinstance(module, nn.MultiheadAttention) or (heads_of(module) is not None and projects):
            found.append(name)
    return found


def lies_in(name: str, outer: str) -> bool:
    """Whether a module is another one or lies in it."""
    return outer == "" or name == outer or name.startswith(outer + ".")


def blocks_of(parts: list[str], modules: Modules) -> dict[str, list[str]]:
    """Attentions and perceptrons by the block that they belong to, which is an element of a list of modules.

    The innermost one; but where an outer element holds several inner ones of one part each, these are its branches. A
    part that belongs to no list stands for itself.
    """
    inner: dict[str, list[str]] = {}
    for part in parts:
        inner.setdefault(_element(part, modules) or part, []).append(part)
    lonely = {block for block, found in inner.items() if len(found) == 1 and block != found[0]}
    lonely |= {block for block, found in inner.items() if block == found[0] and _element(block, modules)}
    found: dict[str, list[str]] = {}
    for block, held in inner.items():
        outer = _element(parent_of(block), modules) if block in lonely else ""
        branches = [other for other in inner if outer and lies_in(other, outer)]
        kinds = {heads_of(modules[part]) is not None for other in branches for part in inner[other]}
        together = len(kinds) == 2 and lonely.issuperset(branches)
        found.setdefault(outer if together else block, []).extend(held)
    return found


def _element(name: str, modules: Modules) -> str:
    """The innermost element of a list of modules, with a number in its name, that a module is or lies in; or ""."""
    while name:
        last = name.rpartition(".")[2]
        if isinstance(modules[parent_of(name)], _LISTS) and any(letter.isdigit() for letter in last):
            return name
        name = parent_of(name)
    return ""


def in_list(block: str, modules: Modules) -> bool:
    """Whether it is an element of a list."""
    return bool(block) and isinstance(modules[parent_of(block)], _LISTS)


def convolves(module: nn.Module) -> bool:
    """Whether there is a convolution of more than one pixel in it."""
    return any(isinstance(part, _CONVOLUTIONS) and set(part.kernel_size) != {1} for part in module.modules())


def is_whole(block: str, parts: list[str], modules: Modules) -> bool:
    """Whether a block is run as such and holds more than one part, so that what it gives is the stream, no branch."""
    if not in_list(block, modules) or isinstance(modules[block], nn.ModuleList | nn.ModuleDict):
        return False
    if len(parts) > 1:
        return True
    if block in parts:
        norms = any(isinstance(child, nn.LayerNorm) for child in modules[block].children())
        return norms or second_layer(modules[block]) is None
    inside = {id(p) for part in parts for p in modules[part].parameters()}
    return any(id(p) not in inside for p in modules[block].parameters())


def convolutional(modules: Modules, taken: list[str]) -> dict[str, str | None]:
    """Elements of lists that hold convolutions and none of what is taken: block -> its last convolution, if of two.

    The innermost such elements; squeeze-and-excitation and what lies beside the main path do not count.
    """
    found: dict[str, str | None] = {}
    for name, module in modules.items():
        if not name or isinstance(module, (*_LISTS, *_CONVOLUTIONS)) or _SQUEEZES.search(type(module).__name__):
            continue
        if not isinstance(modules[parent_of(name)], _LISTS):
            continue
        if any(lies_in(name, part) or lies_in(part, name) for part in taken if part):
            continue
        layers = list(main_convolutions(module))
        if layers:
            found = {outer: last for outer, last in found.items() if not lies_in(name, outer)}
            found[name] = f"{name}.{layers[-1]}" if len(layers) > 1 else None
    return found


def main_convolutions(block: nn.Module) -> Iterator[str]:
    """Names, inside a block, of the convolutions of its main path in their order."""
    aside: list[str] = []
    for name, module in block.named_modules():
        if _ASIDE.search(name) or _SQUEEZES.search(type(module).__name__):
            aside.append(name)
        elif isinstance(module, _CONVOLUTIONS) and not any(lies_in(name, outer) for outer in aside):
            yield name


def channels_last(block: nn.Module) -> bool:
    """Whether maps that a block is given have their channels last: it begins with a norm or a product over them."""
    for module in block.modules():
        if isinstance(module, _CONVOLUTIONS) or type(module).__name__.lower().endswith("2d"):
            return False
        if isinstance(module, nn.LayerNorm | nn.Linear):
            return True
    return False


def batch_first(block: nn.Module) -> bool:
    """Whether tokens in a block come as (n, t, d), not (t, n, d); ``nn.MultiheadAttention`` says it of itself."""
    said = (module.batch_first for module in block.modules() if isinstance(module, nn.MultiheadAttention))
    return next(said, True)


def prefix_tokens(name: str, modules: Modules) -> int:
    """How many tokens stand before the patches: class tokens and registers, as the nearest network around says."""
    while True:
        module = modules[name]
        count = getattr(module, "num_prefix_tokens", None)
        embeds = hasattr(module, "patch_embed") or hasattr(module, "embeds")
        if isinstance(count, int) and not isinstance(count, bool) and embeds:
            return count
        if any(isinstance(getattr(module, token, None), nn.Parameter) for token in _CLASS_TOKENS):
            return 1
        if not name:
            return 0
        name = parent_of(name)


def seats_of(name: str, modules: Modules) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """Rows and columns of patches, if the network takes images of one size alone, and the pixels a patch is apart from
    the next; as the nearest network around says."""
    while True:
        module = modules[name]
        for part in (module, *module.children()):
            grid, patch = getattr(part, "grid_size", None), _pair(getattr(part, "patch_size", None))
            if isinstance(grid, tuple) and len(grid) == 2 and patch:
                return (grid if getattr(part, "strict_img_size", True) else None), patch
        side, patch = _pair(getattr(module, "image_size", None)), _pair(getattr(module, "patch_size", None))
        if side and patch:  # torchvision's
            return (side[0] // patch[0], side[1] // patch[1]), patch
        if not name:
            return None, None
        name = parent_of(name)


def _pair(number: object) -> tuple[int, int] | None:
    """A positive number as rows and columns, or such a pair."""
    pair = (number, number) if isinstance(number, int) else number
    fits = isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(one, int) and one > 0 for one in pair)
    return pair if fits else None


def scales(block: nn.Module) -> bool:
    """Whether a block has vectors of its own, with which it scales what it adds."""
    return any(0 < p.numel() == max(p.shape) > 1 for p in block.parameters(recurse=False))
