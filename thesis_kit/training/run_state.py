"""What a training run's checkpoint belongs to, and what it holds.

Two runs are the same where data, start weights, method, terms, augmentation, settings and, on a CPU, the number of
threads are: then going on from a checkpoint ends as an unbroken run does.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from thesis_kit.data.parts import Part, Stream
from thesis_kit.files import DamagedFile, digest
from thesis_kit.identity import CannotTell, describe, fingerprint, tell
from thesis_kit.passes import Passes
from thesis_kit.training.minibatches import Data
from thesis_kit.training.run import public_settings, term_name

if TYPE_CHECKING:
    from thesis_kit.training.method import Method
    from thesis_kit.training.run import Run

_LOOKED_AT = 32  # items of a data set of one's own that are hashed
_LEFT: WeakKeyDictionary[nn.Module, dict[str, tuple[str, str]]] = WeakKeyDictionary()  # how runs left it and had it


def identity(
    model: nn.Module, data: Data, method: Method, terms: Iterable[Callable], augment: Callable | None, path: str | Path
) -> dict[str, Any]:
    """What a run depends on beside the numbers it was given; to be asked before the first update.

    Methods, terms and augmentations are known by name, ``version`` and everything public that they hold; functions of
    one's own by their code and what they refer to. A model that a broken-off run with the checkpoint ``path`` left
    behind, and nobody has touched since, starts where that run did.
    """
    device = next(model.parameters()).device.type
    training = [[name for name, p in model.named_parameters() if p.requires_grad],
                [name for name, module in model.named_modules() if module.training]]  # fmt: skip
    return {
        "start": _start_of(model, path),
        "trained": digest(training),
        "data": _data_hash(data),
        "augment": None if augment is None else term_name(augment),
        "version": method.version,
        "parts": digest([_held(part) for part in (method, augment, *terms)]),
        "device": device,
        "threads": torch.get_num_threads() if device == "cpu" else None,
    }


def _start_of(model: nn.Module, path: str | Path) -> str:
    now = fingerprint(model)
    left, start = _LEFT.get(model, {}).get(os.fspath(path), (None, now))
    return start if left == now else now


@contextlib.contextmanager
def leaving(model: nn.Module, path: str | Path | None, settings: dict[str, Any]) -> Iterator[None]:
    """Remember how the block leaves the model, so that the same call with the same model goes on where it was."""
    try:
        yield
    finally:
        if path is not None:
            _LEFT.setdefault(model, {})[os.fspath(path)] = fingerprint(model), settings["start"]


def _held(part: object) -> Any:
    """What a method, term or augmentation is made of, as far as it can be told."""
    with contextlib.suppress(CannotTell):
        if part is None or isinstance(part, nn.Module):
            return tell(part)
        if hasattr(part, "__code__") or hasattr(part, "func") or hasattr(part, "__func__"):
            return describe(part)
        return [type(part).__qualname__, tell(public_settings(part))]
    return term_name(part)


def _data_hash(data: Data) -> str:
    """A hash of images and labels: of all in memory, of a stream's name, of a data set's items here and there."""
    if isinstance(data, Stream):
        return digest(["stream", data.name])
    if isinstance(data, Part):
        return digest([tell(data.x), tell(data.y)])
    return digest(_told(data))


def _told(data: Dataset | Iterable) -> Any:
    if not hasattr(data, "__getitem__"):  # a loader, known by what it loads and how it cuts that
        inner, size = getattr(data, "dataset", None), getattr(data, "batch_size", None)
        return [type(data).__qualname__, size, None if inner is None else _told(inner)]
    if isinstance(data, TensorDataset):
        return [tell(tensor) for tensor in data.tensors]
    if isinstance(data, Subset):
        return [tell([int(index) for index in data.indices]), _told(data.dataset)]
    if isinstance(data, ConcatDataset):
        return [_told(part) for part in data.datasets]
    with contextlib.suppress(CannotTell):
        labels = [tell(getattr(data, name)) for name in ("targets", "labels") if hasattr(data, name)]
        return [type(data).__qualname__, len(data), labels, _items(data)]
    return [type(data).__qualname__, len(data)]


def _items(data: Dataset) -> Any:
    """Some items, spread over the data; nothing where reading one twice gives different ones."""
    places = sorted({i * len(data) // _LOOKED_AT for i in range(_LOOKED_AT)})
    with _as_if_unread():
        first, again = ([_read(data, i) for i in places] for _ in range(2))
    return first if first == again else None


def _read(data: Dataset, i: int) -> Any:
    torch.manual_seed(i)
    return tell(data[i])


@contextlib.contextmanager
def _as_if_unread() -> Iterator[None]:
    """The random numbers of the caller go on as if nothing in the block had drawn any."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(python), np.random.set_state(numpy)


def state_of(run: Run, method: Method, report: Any) -> dict[str, Any]:
    """Everything that going on needs."""
    return {
        "done": run.done,
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict(),
        "method": method.state(),
        "report": asdict(report),
    }


def take_up(state: dict[str, Any], run: Run, method: Method, report_type: type) -> Any:
    """Bring ``run`` and ``method`` to where the checkpoint left them; return the report so far.

    Raises:
        DamagedFile: the state does not fit the run, which a file that was sealed for it never does.
    """
    try:
        run.model.load_state_dict(state["model"])
        run.optimizer.load_state_dict(state["optimizer"])
        run.scaler.load_state_dict(state["scaler"])
        run.done = state["done"]
        method.restore(state["method"])
        return report_type(**{**state["report"], "passes": Passes(**state["report"]["passes"])})
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise DamagedFile(f"the checkpoint does not fit this run ({error}): remove it or name another file") from error
