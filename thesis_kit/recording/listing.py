"""The sites of a network, told by its structure: which there are, where one listens for them, and in which order."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from torch import nn

from thesis_kit.models import anatomy
from thesis_kit.models.seen import inside
from thesis_kit.recording import structure
from thesis_kit.recording.sites import ATTENDED, Site, Sites

_OTHERWISE = {  # attentions whose q, k, v and maps are not of tokens with tokens, once, by parts of their names
    "Window": "works in windows, so that its q, k, v and maps belong to no token of an input",
    "XCA|CrossCovariance|ChannelAttention|ChannelAttn": "is among channels, so that its q, k, v and maps belong to no "
    "token of an input",
    "Diff(?!us)": "subtracts one map from another, so that it has no q, k and map of its own",
}
_BEHIND = {"attention_out": ("drop_path1", "ls1", "ls_1"), "mlp_out": ("drop_path2", "ls2", "ls_2")}


def found_in(model: nn.Module) -> Sites:
    """The sites of a network, told by its structure alone."""
    network = innermost(model)
    modules = dict(network.named_modules())
    return Sites(_found(network, modules), network, modules)


def site_of_layer(model: nn.Module, layer: nn.Module, at: str = "output") -> Site | None:
    """The site at which what a layer gives, or is given, lies as it does there: the one that listens to it, or the
    stream of the block whose tokens it works on one by one, or that of the last block that it holds.

    None of layers of which this cannot be told. A layer of a block that widens its tokens has no width of its own here.
    """
    listed = found_in(model)
    if (site := site_at(listed, layer, at)) is not None:
        return site
    names = _names_of(layer, listed)
    stream = [site for site in listed.values() if site.kind == "residual"]
    held = [site for site in stream if any(structure.lies_in(site.block, name) for name in names)]
    if held:
        return held[-1] if at == "output" else None
    around = [site for site in stream if any(structure.lies_in(name, site.block) for name in names)]
    block = max(around, key=lambda site: len(site.block), default=None)
    if block is None or block.form != "tokens":
        return None
    of_block = [s for s in (*listed.values(), *listed.refused.values()) if structure.lies_in(s.module, block.block)]
    attentions = {site.module for site in of_block if site.kind in ATTENDED}
    if any(structure.lies_in(name, module) and name != module for name in names for module in attentions):
        return None
    mlps = {structure.parent_of(site.module): site for site in of_block if site.kind == "hidden"}
    turned = [mlp for mlp, site in mlps.items() if not site.seated]  # that mix places, with channels in a row
    if any(structure.lies_in(name, mlp) for name in names for mlp in turned):
        return None
    widths = {site.width for site in of_block if site.kind in ("hidden", "residual") and site.seated}
    whole = any(name in attentions or name in mlps for name in names)
    linear = isinstance(layer, nn.Linear) and {layer.in_features, layer.out_features} <= {*widths, *map(_twice, widths)}
    single = linear or isinstance(layer, _ONE_BY_ONE) or type(layer).__name__ in ("DropPath", "LayerScale")
    return replace(block, width=None, scaled=False) if whole or single else None


def site_at(listed: Sites, layer: nn.Module, at: str) -> Site | None:
    """The site that listens to a layer."""
    names = _names_of(layer, listed)
    return next((s for s in listed.values() if s.module in names and s.at == at and s.kind != "penultimate"), None)


def _names_of(layer: nn.Module, listed: Sites) -> list[str]:
    """All names that a layer has in the network of some sites, which may hold it twice."""
    return [name for name, module in listed.network.named_modules(remove_duplicate=False) if module is layer and name]


_ONE_BY_ONE = (nn.LayerNorm, nn.Dropout, nn.Identity, nn.GELU, nn.SiLU, nn.ReLU)


def _twice(width: int | None) -> int | None:
    return width and 2 * width  # as a GLU has


def innermost(model: nn.Module) -> nn.Module:
    """The network in a ``Classifier``, a compiled model or a ``DataParallel``."""
    while (part := inside(model)) is not None:
        model = part
    return model


def _found(network: nn.Module, modules: structure.Modules) -> list[Site]:
    """All sites in the order of the modules."""
    mlps = structure.perceptrons(modules)
    attending = structure.attentions(modules, mlps)
    parts = structure.blocks_of([name for name in modules if name in mlps or name in attending], modules)
    convolving = structure.convolutional(modules, [*mlps, *attending])
    found, lists = [], set()
    for name in modules:
        if name in parts:
            holder = structure.parent_of(structure.parent_of(name))
            if structure.in_list(name, modules) and holder not in lists:
                lists.add(holder)
                found += _tokens(name, holder, parts[name], mlps, modules)
            found += _of_block(name, parts[name], mlps, modules)
        elif name in convolving:
            found += _of_convolutions(name, convolving[name], modules)
    if not parts and not any(convolving.values()):
        leaves = [name for name, module in modules.items() if name and not next(module.children(), None)]
        found = [_site(name, "layer", name, "output", _form(modules[name]), name, modules) for name in leaves]
    return found + _features(network, modules)


def _site(
    name: str, kind: str, module: str, at: str, form: str, block: str, modules: structure.Modules, **known: object
) -> Site:
    """A site with what its block and the network around it say of the order of things."""
    around, where = modules[block], {}
    if form != "maps" and structure.in_list(block, modules):
        grid, stride = structure.seats_of(block, modules)
        where = {"prefix": structure.prefix_tokens(block, modules), "grid": grid, "stride": stride, "seated": True}
    order = {"batch_first": structure.batch_first(around)}
    if form == "tokens":
        order["channels_last"] = structure.channels_last(around)
    return Site(name, kind, module, at, form, block=block, **{**where, **order, **known})


def _tokens(
    block: str, holder: str, parts: list[str], mlps: Mapping[str, str], modules: structure.Modules
) -> list[Site]:
    """What the first block of a list is given, if it is tokens; the name is that of what holds the list."""
    if not structure.channels_last(modules[block]):
        return []
    name, width = f"{holder}.tokens".lstrip("."), _width(parts, mlps, modules)
    return [replace(_site(name, "tokens", block, "input", "tokens", block, modules, width=width), block="")]


def _width(parts: list[str], mlps: Mapping[str, str], modules: structure.Modules) -> int | None:
    """How wide the stream is, as the last perceptron that mixes channels or the attention's own numbers say."""
    for part in reversed(parts):
        if part in mlps:
            layer = modules[mlps[part]]
            return getattr(layer, "out_features", None) or getattr(layer, "out_channels", None)
    width = getattr(modules[parts[0]], "embed_dim", None)
    return width if isinstance(width, int) else None


def _of_block(block: str, parts: list[str], mlps: Mapping[str, str], modules: structure.Modules) -> Iterator[Site]:
    """Sites of a block with attentions or perceptrons."""
    width = _width(parts, mlps, modules)
    for part in parts:
        alike = [other for other in parts if (other in mlps) == (part in mlps)]
        path = _path(part, block, alike)
        make = _of_mlp if part in mlps else _of_attention
        yield from make(path, part, block, mlps, modules, width)
    if structure.is_whole(block, parts, modules):
        form = "tokens" if structure.channels_last(modules[block]) else "maps"
        yield _site(f"{block}.residual", "residual", block, "output", form, block, modules, width=width)


def _path(part: str, block: str, alike: list[str]) -> str:
    """What the sites of a part are named after: its block, and as much of its own name as tells it from others."""
    pieces = part.split(".")
    for length in range(len(block.split(".")) if block else 0, len(pieces)):
        path = ".".join(pieces[:length])
        if sum(structure.lies_in(other, path) for other in alike) == 1:
            return path
    return part


def _of_mlp(
    path: str, part: str, block: str, mlps: Mapping[str, str], modules: structure.Modules, width: int | None
) -> Iterator[Site]:
    second = modules[mlps[part]]
    linear = isinstance(second, nn.Linear)
    hidden = second.in_features if linear else second.in_channels
    over_tokens = linear and ("token" in part.rpartition(".")[2] or width not in (None, second.out_features))
    form, known = "tokens" if linear else "maps", {"channels_last": linear}
    where = {"prefix": 0, "grid": None, "stride": None, "seated": False} if over_tokens else {}
    name = f"{path}.hidden".lstrip(".")
    yield _site(name, "hidden", mlps[part], "input", form, block, modules, width=hidden, **known, **where)
    if over_tokens:
        return
    alone = part != block and not structure.convolves(modules[part])
    behind = _behind("mlp_out", block, part if alone else mlps[part], modules)
    name, scaled = f"{path}.mlp_out".lstrip("."), _scaled_later(behind, block, modules)
    yield _site(name, "mlp_out", behind, "output", form, block, modules, width=width, scaled=scaled, **known)


def _of_attention(
    path: str, part: str, block: str, mlps: Mapping[str, str], modules: structure.Modules, width: int | None
) -> Iterator[Site]:
    module = modules[part]
    heads, refusal = structure.heads_of(module), ""
    for told, why in _OTHERWISE.items():
        if re.search(told, type(module).__name__):
            refusal = (
                f"The attention of {type(module).__name__} {why}: take the sites residual, hidden or attention_out."
            )
    for kind in ATTENDED:
        form = "attention" if kind == "attention_map" else "heads"
        name = f"{path}.{kind}".lstrip(".")
        yield _site(name, kind, part, kind, form, block, modules, heads=heads, refusal=refusal)
    behind = _behind("attention_out", block, part, modules)
    windows = refusal and "Window" in type(module).__name__
    if (windows and behind == part) or (part == block and structure.is_whole(block, [part], modules)):
        return  # what the attention gives is in an order of its own, or comes out together with what the MLP gives
    name, scaled = f"{path}.attention_out".lstrip("."), _scaled_later(behind, block, modules)
    yield _site(name, "attention_out", behind, "output", "tokens", block, modules, width=width, scaled=scaled)


def _behind(kind: str, block: str, part: str, modules: structure.Modules) -> str:
    """The last module that a branch goes through before it is added: a layer scale or a stochastic depth."""
    names = [f"{block}.{name}".lstrip(".") for name in _BEHIND[kind]]
    around = structure.parent_of(part)
    if isinstance(modules[around], nn.Sequential) and around != block and structure.lies_in(around, block):
        names.append(around)  # a branch of its own, with its scale
    return next((name for name in names if name in modules), part)


def _scaled_later(behind: str, block: str, modules: structure.Modules) -> bool:
    """Whether a block scales what a module gives by vectors of its own, after it was seen."""
    seen_scaled = behind.rpartition(".")[2] in {name for names in _BEHIND.values() for name in names}
    return block != behind and not seen_scaled and structure.scales(modules[block])


def _of_convolutions(block: str, last: str | None, modules: structure.Modules) -> Iterator[Site]:
    """Sites of a block of convolutions, or of a single layer with one."""
    if last is None:
        inner = next(structure.main_convolutions(modules[block]), None)
        width = modules[f"{block}.{inner}"].out_channels if inner else None
        yield _site(f"{block}.out", "layer", block, "output", "maps", block, modules, width=width)
        return
    hidden = modules[last].in_channels
    yield _site(f"{block}.hidden", "hidden", last, "input", "maps", block, modules, width=hidden)
    kind = "block" if "dense" in type(modules[block]).__name__.lower() else "residual"  # a dense block appends
    yield _site(f"{block}.{kind}", kind, block, "output", "maps", block, modules, width=modules[last].out_channels)


def _features(network: nn.Module, modules: structure.Modules) -> list[Site]:
    """What the classifier is given, where the network has one linear layer as such."""
    try:
        head = anatomy.head(network)
    except ValueError:
        return []
    place = next(name for name, module in modules.items() if module is head)
    return [Site("penultimate", "penultimate", place, "input", "vectors", width=head.in_features)]


def _form(module: nn.Module) -> str:
    """Whether a layer without parts gives vectors or maps."""
    return "vectors" if isinstance(module, nn.Linear | nn.Flatten) else "maps"
