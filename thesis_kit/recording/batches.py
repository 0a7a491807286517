"""Recording a batch: one pass of a network that ends behind the deepest of some sites, and what stood there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from thesis_kit.asking import CannotTake, Model, as_module, evaluating, gradients, plain
from thesis_kit.checks import NonFiniteOutput, check_same_device
from thesis_kit.recording.listing import found_in
from thesis_kit.recording.sites import Site, Sites
from thesis_kit.recording.watching import IMAGES, Watcher

Run = Callable[[Tensor], object]
Names = str | Site | Sequence[str | Site]


def record(model: Model, x: Tensor, sites: Names, *, grad: bool = False, run: Run | None = None) -> dict[str, Tensor]:
    """What stands at some sites when the network, in evaluation mode, is shown a batch: name -> (n, …).

    The pass ends behind the deepest site. The model is left as it was found, also where something goes wrong. A batch
    is seen as a whole: ``stream`` takes more inputs than fit in memory.

    Args:
        model: a network from inputs (n, …), of any kind, to anything; in a ``Classifier``, compiled or parallel too.
        x: inputs as the model takes them, on its device: images, waveforms, spectra, token ids.
        sites: names of ``sites(model)``, or of layers in ``model.named_modules()``, "input of" a layer, "logits",
            "images" for the inputs. Sites come arranged as they say, layers as they are. A layer that runs several
            times in a pass is seen the first time, and as "name#2" the second.
        grad: keep the graph, to ``x`` and to the parameters that want gradients.
        run: what is called with the inputs where it is not the model itself, such as ``clip.encode_text``.

    Raises:
        UnknownName: a site does not exist; near names are offered.
        ValueError: a pass does not reach a site; an attention map that does not give the attention's own output; inputs
            that are not finite or that the model cannot take. TypeError: inputs or sites of another kind.

    Examples:
        >>> seen = tk.recording.record(model, digits.x, "4")
        >>> seen["4"].shape
        torch.Size([4, 32, 4, 4])
    """
    model = as_module(model)
    check_inputs(model, x)
    with recorder(model, named(sites), grad=grad, run=run) as watcher:
        seen = watcher(x if grad and not x.is_inference() else plain(x))
        return {name: seen[name].clone() if name == IMAGES else seen[name] for name in watcher.names}


@contextmanager
def recorder(model: torch.nn.Module, names: Sequence[str], *, grad: bool = False, run: Run | None = None, **knobs):
    """Inside the block, a ``Watcher`` of the model that may be called with batch after batch."""
    watcher = Watcher(model, names, run=run, **knobs)
    graph = gradients("recording with grad=True", model) if grad else torch.no_grad()
    with graph, evaluating(model), watcher.watching():
        yield watcher


def sites(model: Model, x: Tensor | None = None, *, run: Run | None = None) -> Sites:
    """What can be recorded in a network, by name; ``print`` shows it as a table.

    Args:
        model: as for ``record``. Its structure is looked at, and no class is known by its name.
        x: inputs, of which the first is shown to the network to learn shapes, and how often a pass comes by each site;
            None looks at the structure alone.
        run: as for ``record``.

    Returns:
        Sites by name, in the order of depth. Blocks carry the names of the network's own modules, as in
        "blocks.3.hidden".

    Examples:
        >>> len(tk.recording.sites(model, digits.x)) > 3
        True
    """
    model = as_module(model)
    listed = found_in(model)
    if x is None:
        return listed
    check_inputs(model, x)
    return Sites(list(_measured(model, x[:1], listed, run)), listed.network, listed.modules)


def _measured(model: torch.nn.Module, x: Tensor, listed: Sites, run: Run | None) -> Iterator[Site]:
    """The sites with the shapes that a pass of one input has there."""
    yield from listed.refused.values()
    try:
        found = _seen(model, x, listed, run)
    except CannotTake:
        raise
    except ValueError:  # because of one of them: which?
        found = {}
        for name in listed:
            try:
                found |= _seen(model, x, {name: listed[name]}, run)
            except ValueError as error:
                yield replace(listed[name], refusal=str(error))
                found[name] = None
    yield from (found[name] for name in listed if found[name] is not None)


def _seen(model: torch.nn.Module, x: Tensor, listed: Mapping[str, Site], run: Run | None) -> dict[str, Site]:
    """Each site with its shape and number of runs in one whole pass; None and 0 where it never comes by."""
    names = list(listed)
    with recorder(model, names, run=run, optional=names, to_the_end=True) as watcher:
        seen = watcher(x)
        return {
            name: replace(
                watcher.site(name) or listed[name],
                shape=tuple(seen[name].shape) if name in seen else None,
                calls=watcher.runs.get(name, 0),
            )
            for name in names
        }


def named(sites: Names) -> list[str]:
    """The names of sites that were given by name, or as such, alone or several, each once."""
    several = [sites] if isinstance(sites, str | Site) or not isinstance(sites, Iterable) else list(sites)
    names = [site.name if isinstance(site, Site) else site for site in several]
    if not names or not all(isinstance(name, str) for name in names):
        raise TypeError(f"sites are given by their names in recording.sites(model), at least one, got {sites!r}")
    return list(dict.fromkeys(names))


def check_inputs(model: torch.nn.Module, x: Tensor) -> None:
    """Require a batch of finite inputs on the model's device."""
    if not isinstance(x, Tensor):
        raise TypeError(f"inputs must be a tensor (n, …) as the model takes it, got {type(x).__name__}")
    if x.ndim == 0 or len(x) == 0:
        raise ValueError(f"inputs must be a batch (n, …) of at least one, got shape {tuple(x.shape)}")
    if x.dtype == torch.uint8:
        raise TypeError("inputs must not be bytes, as pixels are in files: convert with x.float() / 255")
    check_same_device(model, x)
    if x.is_floating_point() and not torch.isfinite(x).all():
        raise NonFiniteOutput("the inputs contain NaN or infinity: look at how they were loaded")
