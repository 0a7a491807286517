"""Whether a module computes what its class and its weights say: the rule that bounds are traced by.

A forward hook, a ``forward`` put on an instance, or a subclass that overrides a method can make a layer compute
anything. Such modules are refused, but for what only watches (``passes.Counter``) and for what only makes weights from
other weights, which is made anew: parametrizations, weight norm, spectral norm and pruning of torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from thesis_kit.asking import evaluating
from thesis_kit.passes import Counter

# What a subclass may have of its own without computing anything else.
_HARMLESS = {
    "__init__", "__module__", "__doc__", "__dict__", "__weakref__", "__annotations__", "__repr__", "extra_repr",
    "__parameters__", "__orig_bases__", "__getstate__", "__setstate__", "__deepcopy__", "__hash__", "__constants__",
    "__qualname__", "__static_attributes__", "__firstlineno__", "__slots__", "__annotate__", "__annotate_func__",
    "__annotations_cache__", "__class_getitem__", "__init_subclass__", "__subclasshook__", "__abstractmethods__",
    "_abc_impl", "reset_parameters",
}  # fmt: skip


class UnsupportedLayer(ValueError):
    """A layer of the model that no bounds are known for; the message names it and says why."""


def kind_of(module: nn.Module, known: Iterable[type]) -> type | None:
    """The known class whose computation a module inherits whole; None if it overrides any of it."""
    for cls in type(module).__mro__:
        if cls in known:
            above = type(module).__mro__[: type(module).__mro__.index(cls)]
            own = {name for one in above for name in vars(one)} - _HARMLESS
            return None if any(hasattr(cls, name) for name in own) else cls
    return None


def check_plain(module: nn.Module, path: str) -> None:
    """Require that calling a module runs its class's ``forward`` and nothing else.

    Raises:
        UnsupportedLayer: it has hooks that may change what it computes, or methods of its own.
    """
    if isinstance(module, torch.jit.ScriptModule):
        raise UnsupportedLayer(
            f"no bounds are known for {path or 'the model'}, which torch.jit has compiled: bound the model that it was "
            "made from"
        )
    check_hooks(module, path)
    for name, own in vars(module).items():
        if callable(own) and callable(getattr(type(module), name, None)):
            _refuse(module, path, f"a method {name} of its own")
    if any("__call__" in vars(cls) for cls in type(module).__mro__[: type(module).__mro__.index(nn.Module)]):
        _refuse(module, path, "a method __call__ of its own")


def check_hooks(module: nn.Module, path: str) -> None:
    """The part of ``check_plain`` that concerns hooks."""
    everywhere = [*torch_module._global_forward_hooks.values(), *torch_module._global_forward_pre_hooks.values()]
    if not all(isinstance(hook, Counter) for hook in everywhere):
        _refuse(module, path, "a forward hook that torch runs on every module")
    if not all(isinstance(hook, Counter) for hook in module._forward_hooks.values()):
        _refuse(module, path, "a forward hook")
    if not all(
        isinstance(hook, Counter) or _makes_weights(hook, module) for hook in module._forward_pre_hooks.values()
    ):
        _refuse(module, path, "a forward pre-hook")


def named(module: nn.Module, path: str) -> str:
    """A module as messages call it."""
    seen = type(module).__name__ if next(module.children(), None) is not None else repr(module)
    return f"{path or 'the model'}, {seen}"


def _refuse(module: nn.Module, path: str, what: str) -> None:
    raise UnsupportedLayer(
        f"no bounds are known for {named(module, path)}, which has {what}: remove it, or bound a model without"
    )


def _makes_weights(hook: Any, module: nn.Module) -> bool:
    """Whether a pre-hook is one of torch's that only makes a weight from parameters and buffers of the module."""
    held = {*module._parameters, *module._buffers}
    if type(hook) is WeightNorm:
        return {f"{hook.name}_g", f"{hook.name}_v"} <= held
    if type(hook) is SpectralNorm:
        return {f"{hook.name}_orig", f"{hook.name}_u"} <= held
    if isinstance(hook, BasePruningMethod):
        methods = (getattr(type(hook), name) is getattr(BasePruningMethod, name) for name in ("__call__", "apply_mask"))
        return all(methods) and {f"{hook._tensor_name}_orig", f"{hook._tensor_name}_mask"} <= held
    return False


def weights_of(module: nn.Module) -> Callable[[str], Tensor | None]:
    """The tensors that a plain module computes with in evaluation mode, by name; the module stays as it is.

    Where hooks or parametrizations make them, they are made anew from what they are made of.
    """
    made = {}
    for hook in module._forward_pre_hooks.values():
        if type(hook) is WeightNorm:
            made[hook.name] = hook.compute_weight(module)
        elif type(hook) is SpectralNorm:
            made[hook.name] = hook.compute_weight(module, do_power_iteration=False)
        elif isinstance(hook, BasePruningMethod):
            made[hook._tensor_name] = hook.apply_mask(module)
    if (parametrizations := module._modules.get("parametrizations")) is not None:
        with evaluating(parametrizations):
            made |= {name: getattr(module, name) for name in parametrizations}
    return lambda name: made[name] if name in made else getattr(module, name)
