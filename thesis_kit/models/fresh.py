"""New initial weights for layers that have some, also where a layer's weight is computed from others.

``reset_parameters`` writes into ``weight``. Under weight norm, spectral norm, pruning or a parametrization that is a
passing value, recomputed before the next pass: what is drawn has to be handed on to the tensors it is computed from.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from thesis_kit.models.copying import copied

_COMPUTING = (WeightNorm, SpectralNorm, BasePruningMethod)
_SETTLING = 15  # power iterations until a spectral norm fits its new weight, as many as torch makes at first


def fixed_parameters(module: nn.Module) -> list[str]:
    """Names of a module's own parameters that cannot be drawn anew, for it has no ``reset_parameters``.

    Those that stand behind a parametrization are their layer's.
    """
    if hasattr(module, "reset_parameters") or isinstance(module, parametrize.ParametrizationList):
        return []
    return [name for name, _ in module.named_parameters(recurse=False)]


def draw_anew(modules: Iterable[nn.Module], seed: int) -> None:
    """Initial weights and statistics for these modules, as their own ``reset_parameters`` gives them.

    Masks of pruning stay. The caller's random state is left as it was.

    Raises:
        ValueError: a layer's weight is computed in a way that cannot be undone, or ``reset_parameters`` leaves a part
            as it is.
    """
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for module in modules:
            if hasattr(module, "reset_parameters"):
                device = next((tensor.device for tensor in module.parameters()), torch.device("cpu"))
                _reset(module.cpu())  # on the CPU: alike on every device
                module.to(device)


def _reset(module: nn.Module) -> None:
    if parametrize.is_parametrized(module):
        _reset_behind_parametrizations(module)
        return
    hooks = [hook for hook in module._forward_pre_hooks.values() if isinstance(hook, _COMPUTING)]
    for hook in hooks:
        hook(module, None)  # where the parameters lie
    computed = [_computed(hook) for hook in hooks]
    behind = {name + part for name in computed for part in ("_g", "_v", "_orig")}
    _draw(module, [name for name, _ in module.named_parameters(recurse=False) if name not in behind] + computed)
    for hook in hooks:
        _hand_on(module, hook)


def _draw(module: nn.Module, names: list[str]) -> None:
    """``reset_parameters``, which must write all of these tensors but those that a first pass is to make."""
    names = [name for name in names if not is_lazy(getattr(module, name))]
    for name in names:
        getattr(module, name).fill_(torch.nan)
    module.reset_parameters()
    for name in names:
        if getattr(module, name).isnan().any():
            raise ValueError(
                f"reset_parameters of {type(module).__name__} does not draw its {name} anew: build a second network "
                "with new weights yourself"
            )


def _computed(hook: object) -> str:
    """The name of the tensor that a hook computes before every pass."""
    return hook._tensor_name if isinstance(hook, BasePruningMethod) else hook.name


def _hand_on(module: nn.Module, hook: object) -> None:
    """Give a newly drawn weight to the parameters that a hook computes it from, and compute it from them."""
    if isinstance(hook, WeightNorm):
        weight = getattr(module, hook.name)
        getattr(module, f"{hook.name}_v").copy_(weight)
        getattr(module, f"{hook.name}_g").copy_(torch.norm_except_dim(weight, 2, hook.dim))
    elif isinstance(hook, SpectralNorm):
        getattr(module, f"{hook.name}_orig").copy_(getattr(module, hook.name))
        for _ in range(_SETTLING):
            hook.compute_weight(module, do_power_iteration=True)
    else:
        getattr(module, f"{_computed(hook)}_orig").copy_(getattr(module, _computed(hook)))
    hook(module, None)


def _reset_behind_parametrizations(module: nn.Module) -> None:
    """Draw with the parametrizations off, on a copy, and assign the result through them."""
    plain, mode = copied(module), module.training
    for name in [*plain.parametrizations]:
        parametrize.remove_parametrizations(plain, name, leave_parametrized=True)
    _draw(plain, [name for name, _ in plain.named_parameters(recurse=False)])
    for name, parameter in module.named_parameters(recurse=False):
        parameter.copy_(getattr(plain, name))
    for name in [*module.parametrizations]:
        _assign(module, name, getattr(plain, name).detach())
    module.train()
    for _ in range(_SETTLING):  # a spectral norm looks at its weight in training mode alone
        for name in module.parametrizations:
            getattr(module, name)
    module.train(mode)


def _assign(module: nn.Module, name: str, drawn: Tensor) -> None:
    try:
        setattr(module, name, drawn)
    except (NotImplementedError, RuntimeError, ValueError, TypeError) as error:
        originals = [*module.parametrizations[name].parameters(recurse=False)]
        if len(originals) != 1 or originals[0].shape != drawn.shape:
            raise ValueError(
                f"{name} of {type(module).__name__} cannot be drawn anew, for what computes it has no right_inverse "
                f"({str(error).rstrip('.') or 'not implemented'}): build a second network yourself"
            ) from error
        originals[0].copy_(drawn)  # as a layer is drawn before it is parametrized
