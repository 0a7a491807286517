"""Recording a data set: batch after batch goes by, positions are pooled, and what is kept has a bounded size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from thesis_kit.asking import Model, as_module, parameters, plain
from thesis_kit.checks import NonFiniteOutput, check_count, choose
from thesis_kit.data.forms import as_tensor, in_memory, is_dataset
from thesis_kit.data.parts import Stream
from thesis_kit.recording.batches import Names, Run, check_inputs, named, recorder
from thesis_kit.recording.order import laid_out
from thesis_kit.recording.reducers import Moments, Reducer, Rows, Top, TopExamples
from thesis_kit.recording.sites import Site, spread
from thesis_kit.recording.watching import Watcher

Pool = str | Callable[[Tensor], Tensor]
POOLS = ("mean", "max", "class")
_REDUCERS = {"moments": Moments, "rows": Rows}
_FORMS = "a tensor or array (n, …), a Part, a pair (inputs, labels), a map-style Dataset, or minibatches"


def stream(
    model: Model,
    data: object,
    sites: Names,
    *,
    reduce: str | Callable[[], Reducer] = "moments",
    pool: Pool = "mean",
    batch_size: int = 64,
    run: Run | None = None,
) -> dict[str, object]:
    """Show a data set to a network batch by batch, and keep what a reducer keeps of each site: name -> result.

    No more than a batch of what stands at the sites is held at a time, and no more of the data than that, unless they
    lie in memory already.

    Args:
        model, sites, run: as for ``record``.
        data: inputs, with labels or without, which are not looked at: a tensor or array (n, …), a ``Part``, a pair
            (inputs, labels), a map-style ``Dataset``, or minibatches such as a ``DataLoader`` gives.
        reduce: "moments" (``Statistics``), "rows" (all pooled values, (n, u)), or what makes a reducer, such as
            ``lambda: Top(20)``. Each site has one of its own.
        pool: how the positions of an input become one number a unit: "mean" or "max" over patches, without class
            tokens and registers; "class" for the first token; or a function (n, …) -> (n, u) of what ``record`` gives.
            Units are the channels, of q, k and v those of one head behind another, of an attention map the heads.
        batch_size: inputs a pass, which changes results by rounding alone.

    Raises:
        UnknownName, ValueError, TypeError: as ``record``; there are no inputs; values that are not finite.

    Examples:
        >>> moments = tk.recording.stream(model, digits, "4")["4"]
        >>> moments.mean.shape
        torch.Size([32])
    """
    make = choose(reduce, _REDUCERS, "way to reduce") if isinstance(reduce, str) else reduce
    names = named(sites)
    _check_pool(pool)
    kept = {name: _made(make) for name in names}
    for watcher, seen, positions, _ in _recorded(model, data, names, batch_size, run):
        for name in names:
            kept[name].add(_pooled(*_to_pool(watcher, seen, name, pool), name, pool), positions)
    return {name: reducer.result() for name, reducer in kept.items()}


def _made(make: Callable[[], Reducer]) -> Reducer:
    """A reducer of what is said to make one."""
    made = make() if callable(make) else make
    if not callable(make) or not isinstance(made, Reducer):
        raise TypeError(
            "reduce must be “moments”, “rows” or a function that makes a reducer, with add and result, such as "
            f"lambda: Top(20), got {f'one that makes {made!r}' if callable(make) else repr(make)}"
        )
    return made


def top_examples(
    model: Model,
    data: object,
    site: str | Site,
    k: int = 20,
    *,
    units: Sequence[int] | Tensor | None = None,
    pool: Pool = "mean",
    patterns: bool = False,
    batch_size: int = 64,
    run: Run | None = None,
) -> TopExamples:
    """The k inputs that excite each unit of a site most, by their positions in the data; of equal ones the earlier.

    Args:
        model, run: as for ``record``. data, pool, batch_size: as for ``stream``.
        site: one name. k: at most as many as there are inputs.
        units: those that are asked for; None for all. Or directions, floating-point rows (k, u): a row is then asked
            about as if it were a unit, and ``units`` of what is returned are the rows' numbers.
        patterns: keep each unit at every patch of its strongest inputs, as maps (u, k, rows, columns) where the patches
            form a grid, else (u, k, patches).

    Raises:
        UnknownName, ValueError, TypeError: as ``stream``; units that the site does not have; fewer inputs than k.

    Examples:
        >>> tk.recording.top_examples(model, digits, "4", k=2, units=[0, 1]).index.shape
        torch.Size([2, 2])
    """
    name, top = only(site), Top(k)
    _check_pool(pool)
    chosen = None if units is None else given_units(units)
    for watcher, given, positions, x in _recorded(model, data, [name], batch_size, run):
        pooled = _pooled(*_to_pool(watcher, given, name, pool), name, pool) if _of_all(chosen, pool) else None
        directed = chosen is not None and chosen.is_floating_point()
        value, place = watcher.standing(name) if patterns or directed else (None, None)
        if directed:
            pooled, seen = _along(chosen, pooled, value, place, name, pool)
        else:
            chosen = torch.arange(pooled.shape[1]) if chosen is None else chosen
            chosen = check_units(chosen, pooled.shape[1], name).to(pooled.device)
            pooled, seen = pooled[:, chosen], spread(value, place)[:, chosen] if patterns else None
        top.add(pooled, positions.to(pooled.device), seen if patterns else None)
        shown = x
    found = top.result()
    if patterns:
        found = replace(found, pattern=laid_out(found.pattern, model, shown, place, run=run))
    return found if chosen.is_floating_point() else replace(found, units=chosen)


def only(site: str | Site) -> str:
    """The name of one site.

    Raises:
        ValueError: there are several. TypeError: none.
    """
    names = named(site)
    if len(names) > 1:
        raise ValueError(f"units are asked about at one site, got {len(names)}: call it once each")
    return names[0]


def _recorded(
    model: Model, data: object, names: Sequence[str], batch_size: int, run: Run | None
) -> Iterator[tuple[Watcher, dict[str, Tensor], Tensor, Tensor]]:
    """Batch by batch, the watcher that saw it, what stands at some sites, the positions of the inputs, and these."""
    model = as_module(model)
    check_count(batch_size, what="batch_size")
    device = next((parameter.device for parameter in parameters(model)), None)
    first = 0
    with recorder(model, names, run=run) as watcher:
        for x in inputs(data, batch_size, device):
            check_inputs(model, x)
            seen = watcher(plain(x))
            yield watcher, seen, torch.arange(first, first + len(x)), x
            first += len(x)
    if first == 0:
        raise ValueError("there are no inputs to record: the data are empty")


def _to_pool(watcher: Watcher, seen: dict[str, Tensor], name: str, pool: Pool) -> tuple[Tensor, Site | None]:
    """What is pooled: what ``record`` gives where a function does it, else arranged, with how it lies."""
    return (seen[name], watcher.site(name)) if callable(pool) else watcher.standing(name)


def _of_all(chosen: Tensor | None, pool: Pool) -> bool:
    """Whether all units are pooled, and not directions among them at their positions."""
    return chosen is None or not chosen.is_floating_point() or callable(pool) or pool == "class"


def inputs(data: object, size: int, device: torch.device | None = None) -> Iterator[Tensor]:
    """The inputs of ``data`` in order, ``size`` at a time at most, on a device where one is given."""
    if isinstance(data, Stream):
        raise TypeError(f"a stream has no end: take stream.minibatch(0, n), or {_FORMS}")
    if isinstance(data, Tensor | np.ndarray):
        minibatches: Iterable = [data]
    elif (held := None if _are_minibatches(data) else in_memory(data)) is not None:
        minibatches = [held.x]
    elif isinstance(data, str | Mapping) or not (is_dataset(data) or isinstance(data, Iterable)):
        raise TypeError(f"inputs come as {_FORMS}, got {type(data).__name__}")
    else:
        minibatches = DataLoader(data, batch_size=size, generator=torch.Generator()) if is_dataset(data) else data
    for minibatch in minibatches:
        x = as_tensor(minibatch[0] if isinstance(minibatch, tuple | list) and len(minibatch) else minibatch)
        x = getattr(x, "x", x)
        if not isinstance(x, Tensor):
            raise TypeError(f"the inputs of a minibatch must be a tensor or an array, got {type(x).__name__}")
        for some in x.split(size) if len(x) else ():
            yield some if device is None else some.to(device)


def _are_minibatches(data: object) -> bool:
    """Whether a list of two tensors, which is a pair of inputs and labels elsewhere, can only be two minibatches."""
    if not isinstance(data, list) or len(data) != 2 or not all(isinstance(x, Tensor | np.ndarray) for x in data):
        return False
    return not (len(data[0]) == len(data[1]) and data[1].ndim <= 1 < data[0].ndim)


def _check_pool(pool: Pool) -> None:
    if not callable(pool):
        choose(pool, POOLS, "way to pool")


def _pooled(value: Tensor, site: Site | None, name: str, pool: Pool) -> Tensor:
    """(n, …) -> (n, u), finite."""
    if callable(pool):
        pooled = pool(value)
    elif choose(pool, POOLS, "way to pool") == "class":
        pooled = _class_token(value, site, name)
    else:
        if site is not None and site.form == "attention" and pool == "mean":
            raise ValueError(
                f"each row of {name} adds up to 1, so that its mean says nothing of an input: pool it by “max”, or by "
                "a function of your own"
            )
        positions = spread(value, site).flatten(2)
        pooled = positions.mean(dim=2) if pool == "mean" else positions.amax(dim=2)
    if not isinstance(pooled, Tensor):
        raise TypeError(f"pool must give a tensor ({len(value)}, u) of {name}, got {type(pooled).__name__}")
    if pooled.ndim != 2 or len(pooled) != len(value):
        raise ValueError(f"pool must give one row an input, ({len(value)}, u), of {name}, got {tuple(pooled.shape)}")
    if not torch.isfinite(pooled).all():
        raise NonFiniteOutput(f"{name} gives NaN or infinity: check the model's weights, precision and inputs")
    return pooled


def _class_token(value: Tensor, site: Site | None, name: str) -> Tensor:
    if site is None or site.prefix == 0 or site.form not in ("tokens", "heads"):
        raise ValueError(f"{name} has no class token: pool it by “mean” or “max”")
    return value[:, 0] if site.form == "tokens" else value[:, :, 0].flatten(1)


def _along(
    directions: Tensor, pooled: Tensor | None, value: Tensor, site: Site | None, name: str, pool: Pool
) -> tuple[Tensor, Tensor]:
    """Of directions (k, u), pooled (n, k) and at every position (n, k, …); ``pooled`` units (n, u) where positions do
    not tell what is pooled."""
    seen = spread(value, site)
    rows = check_directions(directions, seen.shape[1], name).to(seen)
    seen = torch.einsum("nu...,ku->nk...", seen, rows)
    if pooled is not None:
        return pooled @ rows.T, seen
    return _pooled(seen.flatten(2), None, name, lambda v: v.mean(2) if pool == "mean" else v.amax(2)), seen


def given_units(units: Sequence[int] | Tensor) -> Tensor:
    """Numbers of units (k,) or directions (k, u), as a tensor.

    Raises:
        ValueError: anything else, such as a mask.
    """
    try:
        found = torch.as_tensor(units).detach()
    except (TypeError, ValueError, RuntimeError):
        found = None
    if found is None or found.numel() == 0 or found.is_complex() or found.dtype == torch.bool or (
        found.ndim != (2 if found.is_floating_point() else 1)
    ):  # fmt: skip
        got = type(units).__name__ if found is None else f"shape {tuple(found.shape)} of {found.dtype}"
        raise ValueError(
            "units are whole numbers (k,) or directions (k, u) of floating-point numbers, at least one, got " + got
        )
    return found if found.is_floating_point() else found.long()


def check_units(units: Tensor, count: int, name: str) -> Tensor:
    """Require numbers of units that a site of ``count`` units has, at least one."""
    whole = units.ndim == 1 and not units.is_floating_point() and units.numel()
    if not whole or units.min() < 0 or units.max() >= count:
        raise ValueError(f"units of {name} must be numbers in [0, {count - 1}], at least one, got {units.tolist()}")
    return units


def check_directions(directions: Tensor, count: int, name: str) -> Tensor:
    """Require finite rows (k, u) that are not zero, for a site of ``count`` units."""
    fits = directions.ndim == 2 and len(directions) and directions.shape[1] == count
    if not fits or not torch.isfinite(directions).all() or not directions.norm(dim=1).all():
        raise ValueError(
            f"directions among the units of {name} must be finite rows (k, {count}), none of them zero, got shape "
            f"{tuple(directions.shape)}"
        )
    return directions
