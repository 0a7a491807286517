"""What is it? Hashes of networks, data and functions, so that kept work is never taken for that of something else.

``tell`` goes through a value and everything it is made of; what it cannot tell apart from others it refuses by name,
for a file that belongs to "some object" would be resumed by any other. ``fingerprint`` is its answer for a network.
"""

from __future__ import annotations

import contextlib
import dis
import enum
import functools
import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from thesis_kit.files.sealing import digest

_PLAIN = (bool, int, float, complex, str, bytes, type(None), PurePath, enum.Enum, range, slice, torch.dtype,
          torch.device, np.generic)  # fmt: skip
_OWN = set(vars(nn.Module()))  # what every module has
_LONGEST = 60  # characters of a value that is told as it is
_DATA = (Tensor, nn.Module, np.ndarray)
_FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial)
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")


class CannotTell(ValueError):
    """Nothing about the thing says which one it is."""


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over a model's modules: their kinds, their attributes, and the bytes of parameters and buffers.

    Buffers count also where they are not stored with the weights, as a ``Classifier``'s mean and standard deviation;
    so do functions among the attributes, a ``forward`` of an instance's own, and hooks of forward passes. Training mode
    does not count, nor does what a module keeps in attributes that nothing can be told about.
    """
    found = sha256()
    for name, module in model.named_modules(remove_duplicate=False):
        found.update(f"{name} {_name(type(module))} {dict(_attributes(module))}\n".encode())
    for name, tensor in [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]:
        found.update(f"{name} {tensor_hash(tensor)}\n".encode())
    return found.hexdigest()


def _attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    for key, value in sorted(vars(module).items()):
        if key not in _OWN and not isinstance(value, nn.Module):
            try:
                yield key, _tell(value, (id(module),)) if _is_simple(value) else _name(type(value))
            except CannotTell:
                yield key, _name(type(value))
    for key in _HOOKS:
        hooks = [hook for hook in vars(module).get(key, {}).values() if not _ours(hook)]
        if hooks:
            yield key, [_name(hook) for hook in hooks]


def _is_simple(value: object) -> bool:
    """Whether an attribute of a network is a setting rather than machinery, such as a compiler's."""
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_is_simple, value))
    if isinstance(value, Mapping):
        return all(map(_is_simple, value.values()))
    return isinstance(value, (*_PLAIN, *_DATA, *_FUNCTIONS, type))


def _ours(hook: Callable) -> bool:
    """Whether a hook is this package's own, which count passes and look at layers but change nothing."""
    return (getattr(hook, "__module__", None) or "").startswith(__name__.partition(".")[0] + ".")


def tensor_hash(tensor: Tensor) -> str:
    """SHA-256 of a tensor's type, shape and values, wherever it lies."""
    if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized:
        raise CannotTell("a tensor without plain values")
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().flatten()
    found = sha256(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
    found.update(memoryview(plain.view(torch.uint8).numpy()))
    return found.hexdigest()


def tell(value: object) -> Any:
    """What a value is, as JSON can hold it: the same text for the same value in every process.

    Numbers, texts, tensors, arrays, networks, functions with all they refer to, dataclasses and other objects by their
    attributes, and collections of such.

    Raises:
        CannotTell: there is something in it that no other process could tell apart, which is named.
    """
    return _tell(value, ())


def must_tell(value: object) -> Any:
    """What a value is, for a file that is to belong to it; see ``tell``.

    Raises:
        ValueError: a sentence about what cannot be told apart, and what to do.
    """
    try:
        return tell(value)
    except CannotTell as error:
        raise ValueError(
            f"what is kept must know what it belongs to, and nothing tells {error} apart from others of its kind: hand "
            "models and attacks plain values, tensors and networks"
        ) from None


def describe(function: Callable) -> dict[str, Any]:
    """What a function is: its name, its code, and what it refers to, by name.

    Args:
        function: with the arguments of a ``functools.partial``, the object of a method, the variables around a lambda.

    Raises:
        CannotTell: it refers to something that no other process could tell apart, which is named.
    """
    return _describe(function, ())


def _tell(value: object, inside: tuple[int, ...]) -> Any:
    if isinstance(value, _PLAIN):
        text = repr(value)
        return text if len(text) <= _LONGEST else sha256(text.encode()).hexdigest()
    if id(value) in inside:
        return "itself"
    inside = (*inside, id(value))
    if isinstance(value, Tensor):
        return tensor_hash(value)
    if isinstance(value, np.ndarray) and value.dtype != object:
        plain = np.ascontiguousarray(value)
        return sha256(f"{plain.dtype} {plain.shape}\n".encode() + plain.tobytes()).hexdigest()
    if isinstance(value, nn.Module):
        return fingerprint(value)
    if isinstance(value, torch.Generator):
        return tensor_hash(value.get_state())
    if isinstance(value, types.ModuleType | type | types.BuiltinFunctionType):
        return _name(value)
    if isinstance(value, Mapping):
        return ["mapping", *([_tell(key, inside), _tell(held, inside)] for key, held in value.items())]
    if isinstance(value, set | frozenset):
        return ["set", *sorted(digest(_tell(held, inside)) for held in value)]
    if isinstance(value, list | tuple):
        return [type(value).__name__, *(_tell(held, inside) for held in value)]
    if isinstance(value, types.FunctionType | types.MethodType | functools.partial):
        return _describe(value, inside[:-1])
    return _tell_object(value, inside)


def _tell_object(value: object, inside: tuple[int, ...]) -> Any:
    """By what ``pickle`` would keep of it: that is all there is, wherever it lies."""
    try:
        said = value.__reduce_ex__(2)
    except TypeError:
        raise CannotTell(f"a {type(value).__qualname__}") from None
    if isinstance(said, str):
        return _name(value)
    make, arguments, *rest = (*said, None, None, None)[:5]
    state, *parts = rest
    held = state if isinstance(state, dict) else {"state": state}
    return {"object": _name(type(value)), "made by": _name(make), "of": _tell(arguments, inside),
            "holds": [_tell(list(part), inside) for part in parts if part is not None],
            **_all_told(held, inside)}  # fmt: skip


def _all_told(held: Mapping[str, object], inside: tuple[int, ...]) -> dict[str, Any]:
    found = {}
    for name, value in held.items():
        try:
            found[name] = _tell(value, inside)
        except CannotTell as error:
            raise CannotTell(f"{name} ({error})") from None
    return found


def _describe(function: Callable, inside: tuple[int, ...]) -> dict[str, Any]:
    if id(function) in inside:
        return {"function": _name(function)}
    inside = (*inside, id(function))
    if isinstance(function, functools.partial):
        given = {f"argument {i}": value for i, value in enumerate(function.args)} | function.keywords
        return _describe(function.func, inside) | _all_told(given, inside)
    if isinstance(function, types.MethodType):
        return _describe(function.__func__, inside) | _all_told({"self": function.__self__}, inside)
    if isinstance(function, types.FunctionType):
        return _describe_function(function, inside)
    if isinstance(function, types.BuiltinFunctionType | type):
        return {"function": _name(function)}
    if isinstance(function, nn.Module):
        return {"function": _name(type(function)), "weights": fingerprint(function)}
    return {"function": _name(type(function)), **_tell_object(function, inside)}


def _describe_function(function: types.FunctionType, inside: tuple[int, ...]) -> dict[str, Any]:
    """A function that can be imported is known by its name and its module's numbers, texts, tensors and networks that
    it uses; any other by its code, and by everything that this refers to."""
    plain = inspect.unwrap(function)
    used = {name: plain.__globals__[name] for name in sorted(_global_names(plain.__code__))
            if name in plain.__globals__}  # fmt: skip
    if function.__module__ != "__main__" and "<" not in function.__qualname__:
        used = {name: value for name, value in used.items() if isinstance(value, (*_PLAIN, *_DATA))}
        return {"function": _name(function), **_all_told(used, inside)}
    held = {**used, **_around(function)}
    return {"function": _name(function), "code": digest(_code(function.__code__))[:16], **_all_told(held, inside)}


def _around(function: types.FunctionType) -> dict[str, object]:
    """Default values, and the variables around a function that it uses."""
    found = {f"default {i}": value for i, value in enumerate(function.__defaults__ or ())}
    found |= {f"default of {name}": value for name, value in (function.__kwdefaults__ or {}).items()}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # not assigned yet
            found[name] = cell.cell_contents
    return found


def _global_names(code: types.CodeType) -> set[str]:
    found = {step.argval for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL"}
    return found.union(*(_global_names(inner) for inner in code.co_consts if inspect.iscode(inner)))


def _code(code: types.CodeType) -> list:
    """What code does, without where it stands."""
    constants = [_code(held) if inspect.iscode(held) else _constant(held) for held in code.co_consts]
    return [code.co_code.hex(), constants, [*code.co_names], [*code.co_varnames], [*code.co_freevars]]


def _constant(held: object) -> str:
    return repr(sorted(held, key=repr)) if isinstance(held, frozenset) else repr(held)


def _name(thing: object) -> str:
    if not hasattr(thing, "__qualname__"):
        return getattr(thing, "__name__", None) or _name(type(thing))
    return f"{getattr(thing, '__module__', None)}.{thing.__qualname__}"
