"""What attentions compute inside of one operation: q, k, v and the map, checked against the attention's own result.

Under fused attention no module gives the map, and in ``nn.MultiheadAttention`` none gives q, k or v. So the operations
themselves are overheard while an attention runs: ``scaled_dot_product_attention``, ``multi_head_attention_forward``,
or, where an attention is written out, the products around its softmax. The library's own modules run as they are.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Note = Callable[[str, Tensor], None]
_FUSED = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
_WHOLE = inspect.signature(F.multi_head_attention_forward)
_SOFTMAX = {torch.softmax, F.softmax, Tensor.softmax}
_PRODUCTS = {torch.matmul, torch.bmm, Tensor.matmul, Tensor.__matmul__, Tensor.bmm}


class Attending(TorchFunctionMode):
    """Overhears the attentions that are running, and notes their q, k, v and "attention_map".

    Args:
        wanted: of each attention, what is wanted of it, and who is told.
    """

    def __init__(self, wanted: Mapping[nn.Module, Mapping[str, Note]]):
        super().__init__()
        self.wanted, self._running = wanted, []

    def begins(self, module: nn.Module) -> None:
        """An attention runs from here on."""
        self._running.append(_Visit(self.wanted[module], type(module).__name__))

    def ends(self, module: nn.Module) -> None:
        """The attention that began last has run."""
        self._running.pop()

    def forget(self) -> None:
        """No attention is running: a pass begins."""
        self._running.clear()

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if not self._running:
            return func(*args, **kwargs)
        visit = self._running[-1]
        if func is F.scaled_dot_product_attention:
            return visit.fused(func, args, kwargs)
        if func is F.multi_head_attention_forward:
            return visit.whole(func, args, kwargs)
        if func in _SOFTMAX:
            return visit.softmax(func, args, kwargs)
        if func in _PRODUCTS and len(args) == 2:
            return visit.product(func, args, kwargs)
        return func(*args, **kwargs)


class _Visit:
    """One run of an attention."""

    def __init__(self, wanted: Mapping[str, Note], kind: str):
        self.wanted, self.kind = wanted, kind
        self._factors: tuple[Tensor, Tensor] | None = None
        self._scores: torch.Size | None = None
        self._map: Tensor | None = None

    def _note(self, **found: Tensor) -> None:
        for part, value in found.items():
            if part in self.wanted:
                self.wanted[part](part, value)

    def fused(self, func: Callable, args: tuple, kwargs: dict) -> Tensor:
        """Of ``scaled_dot_product_attention``: its arguments, and the map that it does not give."""
        given = {**dict(zip(_FUSED, args, strict=False)), **kwargs}
        q, k, v = given["query"], given["key"], given["value"]
        self._note(q=q, k=k, v=v)
        out = func(*args, **kwargs)
        if "attention_map" in self.wanted:
            self._note(attention_map=_checked(_map(given), v, out, self.kind))
        return out

    def whole(self, func: Callable, args: tuple, kwargs: dict) -> tuple[Tensor, Tensor | None]:
        """Of ``nn.MultiheadAttention``: projections from its weights, and the map that it gives when it is asked to."""
        bound = _WHOLE.bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        if {"q", "k", "v"} & set(self.wanted):
            self._note(**dict(zip("qkv", _projected(given), strict=True)))
        out = func(*args, **kwargs)
        if "attention_map" in self.wanted:
            again, weights = func(**{**given, "need_weights": True, "average_attn_weights": False})
            _check_same(again, out[0], self.kind)
            self._note(attention_map=weights)
        return out

    def softmax(self, func: Callable, args: tuple, kwargs: dict) -> Tensor:
        """Of attention that is written out: what made the scores are q and k."""
        out, dim = func(*args, **kwargs), kwargs.get("dim", args[1] if len(args) > 1 else None)
        scores = args[0] if args else kwargs["input"]
        if self._scores == scores.shape and dim in (-1, scores.ndim - 1):
            q, k = self._factors
            self._note(q=q, k=k.transpose(-2, -1))
            self._map = out.clone()
        return out

    def product(self, func: Callable, args: tuple, kwargs: dict) -> Tensor:
        """Of attention that is written out: what the map is multiplied with is v."""
        out, (left, right) = func(*args, **kwargs), args
        if self._map is not None and left.shape == self._map.shape:
            _check_same(self._map, left, self.kind)
            self._note(v=right, attention_map=self._map)
            self._map = self._scores = None
        elif left.ndim >= 3:
            self._factors, self._scores = (left, right), out.shape
        return out


def _map(given: Mapping[str, Any]) -> Tensor:
    """softmax(q kᵀ · scale + mask), in at least single precision; rows that see nothing are 0."""
    q, k, mask = given["query"], given["key"], given.get("attn_mask")
    wide = torch.promote_types(q.dtype, torch.float32)
    if given.get("enable_gqa"):
        k = k.repeat_interleave(q.shape[-3] // k.shape[-3], dim=-3)
    scale = given.get("scale")
    scores = q.to(wide) @ k.to(wide).transpose(-2, -1) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if given.get("is_causal"):
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    blind = scores.isneginf().all(dim=-1, keepdim=True)
    return scores.masked_fill(blind, 0).softmax(dim=-1).masked_fill(blind, 0).to(q.dtype)


def _checked(map_: Tensor, v: Tensor, out: Tensor, kind: str) -> Tensor:
    """The map, if it times v is what the attention itself gave."""
    with torch.no_grad():
        v = v if v.shape[-3] == map_.shape[-3] else v.repeat_interleave(map_.shape[-3] // v.shape[-3], dim=-3)
        _check_same(map_ @ v, out, kind)
    return map_


def _check_same(ours: Tensor, own: Tensor, kind: str) -> None:
    """Require the recomputed and the attention's own numbers to agree to rounding."""
    with torch.no_grad():
        room = 1e-4 if own.dtype in (torch.float32, torch.float64) else 3e-2
        gap, size = ((ours - own).abs().max().item(), own.abs().max().item()) if own.numel() else (0.0, 0.0)
        if not gap <= room * max(size, 1e-6):
            raise ValueError(
                f"the attention map of {kind} does not give the attention's own output (it is off by {gap:.2g} of "
                f"{size:.2g}), for it drops or changes the map after the softmax: take attention_out instead"
            )


def _projected(given: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v (n, heads, t, d) of ``multi_head_attention_forward``, whose inputs are (t, n, e)."""
    if given["query"].ndim != 3:
        raise ValueError("q, k and v are recorded of inputs in a batch: give the model a batch dimension")
    if given["use_separate_proj_weight"]:
        weights = [given[f"{part}_proj_weight"] for part in "qkv"]
    else:
        weights = given["in_proj_weight"].chunk(3)
    biases = given["in_proj_bias"].chunk(3) if given["in_proj_bias"] is not None else (None,) * 3
    inputs = given["query"], given["key"], given["value"]
    values = (F.linear(x, w, b) for x, w, b in zip(inputs, weights, biases, strict=True))
    return tuple(z.unflatten(-1, (given["num_heads"], -1)).permute(1, 2, 0, 3) for z in values)
