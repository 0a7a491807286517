"""A copy of a network that shares nothing with it, whatever training has left in its modules.

``copy.deepcopy`` refuses tensors that belong to a graph. Weight norm, spectral norm and pruning keep their last weight
as such a tensor, and so do networks that keep an activation or a cache. A copy needs their numbers alone: what a
layer computes from its parameters it computes again in the next pass.
"""

from __future__ import annotations

import copy
import gc
import threading
from collections.abc import Iterator
from functools import partial
from pickle import PickleError
from types import CellType, FunctionType, MethodType, ModuleType
from typing import TypeVar

from torch import Tensor, nn
from torch.nn.utils import parametrize

Network = TypeVar("Network", bound=nn.Module)
_LOCKS = {type(threading.Lock()): threading.Lock, type(threading.RLock()): threading.RLock}
_NOT_ENTERED = (type, ModuleType, FunctionType)  # by deepcopy, either


def copied(model: Network) -> Network:
    """A copy of a network with the same outputs, that shares no parameter, buffer, cache or lock with it.

    Tensors that belong to a graph are copied without it; locks are new ones, open.

    Raises:
        ValueError: something in the network cannot be copied, or a function in it, such as a hook, holds one of its
            own layers, which the copy would go on using.
    """
    memo: dict[int, object] = {}
    own = {id(part) for part in (*model.modules(), *model.parameters(), *model.buffers())}
    for thing in _reachable(model):
        if isinstance(thing, Tensor) and not thing.is_leaf:
            memo[id(thing)] = thing.detach().clone()
        elif type(thing) in _LOCKS:
            memo.setdefault(id(thing), _LOCKS[type(thing)]())
        elif isinstance(thing, threading.Condition):  # it shows its lock's methods as its own
            lock = memo.setdefault(id(thing._lock), _LOCKS[type(thing._lock)]())
            memo[id(thing)] = threading.Condition(lock)
        elif isinstance(thing, FunctionType):
            _check_holds_none_of(thing, own, model)
    try:
        new = copy.deepcopy(model, memo)
    except (TypeError, RuntimeError, AttributeError, NotImplementedError, copy.Error, PickleError) as error:
        raise ValueError(
            f"{type(model).__name__} cannot be copied ({error}): take what it holds beside tensors out of it, or build "
            "a second network and load the first one's state_dict"
        ) from error
    for module in new.modules():
        if parametrize.is_parametrized(module):
            _give_own_class(module)
    return new


def _give_own_class(module: nn.Module) -> None:
    """A parametrized layer has a class made for it, from which torch deletes what is unparametrized."""
    kind = type(module)
    content = {name: value for name, value in vars(kind).items() if name not in ("__dict__", "__weakref__")}
    module.__class__ = type(kind.__name__, kind.__bases__, content)


def _reachable(model: nn.Module) -> Iterator[object]:
    """Everything that a deep copy would come by."""
    waiting, met = [model], {}
    while waiting:
        thing = waiting.pop()
        if id(thing) in met:
            continue
        met[id(thing)] = thing  # held, so that no other gets its id
        yield thing
        if isinstance(thing, Tensor):
            waiting.extend([vars(thing), thing.grad] if thing.is_leaf else [vars(thing)])
        elif isinstance(thing, nn.Module):
            waiting.append(_state(thing))
        elif not isinstance(thing, _NOT_ENTERED) and not hasattr(thing, "__deepcopy__"):
            waiting.extend(gc.get_referents(thing))


def _state(module: nn.Module) -> object:
    """What is copied of a module; a compiled one leaves out what it was compiled to."""
    return vars(module) if hasattr(module, "__deepcopy__") else module.__getstate__()


def _check_holds_none_of(function: FunctionType, own: set[int], model: nn.Module) -> None:
    """Refuse a function that a copy would share, and that holds a part of the network."""
    waiting, met = [function], set()
    while waiting:
        thing = waiting.pop()
        if id(thing) in own:
            raise ValueError(
                f"{type(model).__name__} cannot be copied, for the function {function.__qualname__} in it holds its "
                f"{type(thing).__name__}, which the copy would share: take that hook off, or make it a method"
            )
        if id(thing) in met:
            continue
        met.add(id(thing))
        if isinstance(thing, FunctionType):
            waiting.extend([*(thing.__closure__ or ()), thing.__defaults__, thing.__kwdefaults__])
        elif isinstance(thing, (CellType, MethodType, partial, list, tuple, dict, set)):
            waiting.extend(gc.get_referents(thing))
