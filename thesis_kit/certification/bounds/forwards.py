"""Models with a ``forward`` of their own, read by ``torch.fx``: which functions of torch they call, in which order.

The trace is made in evaluation mode and walked beside a few random images, so that code that asks for shapes gets
numbers. Layers are taken as in ``layers.py``; a function, method or operator as in ``functions.py``. Control flow that
depends on pixels, sums over images, products of two values and whatever else has no bounds is refused by name. So is
writing in place into a value that is read again, which a list of operations cannot tell.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx, nn

from thesis_kit.asking import evaluating
from thesis_kit.certification.bounds.functions import FUNCTIONS, METHODS, Values
from thesis_kit.certification.bounds.layers import Unbounded
from thesis_kit.certification.bounds.plain import UnsupportedLayer, check_plain, named

if TYPE_CHECKING:
    from thesis_kit.certification.bounds.tracing import Tracer


def trace_forward(tracer: Tracer, module: nn.Module, path: str, value: int, function: Callable | None = None) -> int:
    """Append the steps of a module's own ``forward`` on ``value``; returns the number of its output.

    A ``function`` is what the module calls and nothing else.

    Raises:
        UnsupportedLayer: it cannot be traced, or calls what no bounds are known for.
    """
    if type(module).__module__.startswith("torch.nn.") and not isinstance(module, nn.Sequential):
        tracer.refuse(module, path)  # a layer of torch by its name, not by what it calls
    reader = _Reader(tracer, path)
    with evaluating(module):
        try:
            graph = reader.trace(_Root(function or module))
        except UnsupportedLayer:
            raise
        except Exception as error:
            said = str(error).strip().partition("\n")[0][:200]
            raise UnsupportedLayer(
                f"no bounds are known for {named(module, path)}, whose forward torch.fx cannot trace ({said}): write "
                "it without control flow that depends on values, or bound a model without it"
            ) from error
        return _Walk(tracer, reader, named(module, path)).walk(graph, value)


class _Root(nn.Module):
    """Calls a module or function on one input, so that it is traced as it is called."""

    def __init__(self, inner: Callable):
        super().__init__()
        self.inner = inner

    def forward(self, x: object) -> object:
        """What it answers."""
        return self.inner(x)


class _Reader(fx.Tracer):
    """Stops at known layers and holds tensors as they are, on itself and not on the model."""

    def __init__(self, tracer: Tracer, path: str):
        super().__init__()
        self.tracer, self.above, self.tensors, self.modules = tracer, path, {}, {}

    def path_in_model(self, name: str) -> str:
        """A module's path in the whole model from its path in the trace."""
        return ".".join(part for part in (self.above, name.partition("inner")[2].strip(".")) if part)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Known layers, and torch's own that are refused by name later."""
        return not isinstance(m, nn.Sequential) and (
            self.tracer.knows(m) or type(m).__module__.startswith("torch.nn.modules")
        )

    def call_module(self, m: nn.Module, forward: Callable, args: tuple, kwargs: dict) -> Any:
        """Every module that is called must be what it seems."""
        name = self.path_of_module(m)
        self.modules[name] = m
        if name != "inner":
            check_plain(m, self.path_in_model(name))
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict) -> Any:
        """Parameters are numbers, not parts of the trace."""
        return attr_val

    def create_arg(self, a: Any) -> Any:
        """Tensors are kept here by name."""
        if isinstance(a, Tensor):
            name = f"tensor{len(self.tensors)}"
            self.tensors[name] = a
            return self.create_node("get_attr", name, (), {})
        return super().create_arg(a)


class _Walk:
    """One pass over a graph: every node's result is a traced value, or what Python made of numbers and constants."""

    def __init__(self, tracer: Tracer, reader: _Reader, name: str):
        self.tracer, self.reader, self.name = tracer, reader, name
        self.values, self.results = Values(tracer), {}

    def walk(self, graph: fx.Graph, value: int) -> int:
        """The number of the graph's output when its input is a value."""
        nodes = list(graph.nodes)
        at = {node: number for number, node in enumerate(nodes)}
        for number, node in enumerate(nodes):
            if node.op == "placeholder":
                self.results[node] = self.values.new(value)
            elif node.op == "get_attr":
                self.results[node] = self.reader.tensors[node.target]
            elif node.op == "output":
                return self._output(node)
            else:
                self.results[node] = self._call(node)
                if self.values.written is not None:
                    self._check_unread(at, node, number)
        raise AssertionError("a graph ends in its output")

    def _output(self, node: fx.Node) -> int:
        (answer,) = self._filled(node.args)
        if not self.values.traced(answer):
            raise UnsupportedLayer(
                f"no bounds are known for {self.name}, which returns a {type(answer).__name__}, not one tensor made "
                "from its input: bound the part that makes the logits"
            )
        return answer.number

    def _call(self, node: fx.Node) -> Any:
        args, kwargs = self._filled(node.args), self._filled(node.kwargs)
        self.values.written = None
        if node.op == "call_module":
            return self._layer(node.target, args, kwargs)
        called = node.target if callable(node.target) else f".{node.target}"
        try:
            if not self.values.anywhere((args, kwargs)):
                function = node.target if callable(node.target) else getattr(args[0], node.target)
                return function(*(args if callable(node.target) else args[1:]), **kwargs)
            known = FUNCTIONS if node.op == "call_function" else METHODS
            if node.target not in known:
                raise Unbounded("")
            return known[node.target](self.values, *args, **kwargs)
        except Unbounded as reason:
            said = f" ({reason})" if str(reason) else ""
            raise UnsupportedLayer(
                f"no bounds are known for {self._where(node)}, which calls {_name(called)}{said}"
            ) from None
        except (TypeError, ValueError, RuntimeError, IndexError) as error:
            first = str(error).partition("\n")[0]
            raise UnsupportedLayer(
                f"no bounds are known for {self._where(node)}, which calls {_name(called)} in a way that is not known "
                f"({first})"
            ) from error

    def _layer(self, target: str, args: tuple, kwargs: dict) -> Any:
        module, path = self.reader.modules[target], self.reader.path_in_model(target)
        if len(args) != 1 or kwargs or not self.values.traced(args[0]):
            raise UnsupportedLayer(f"no bounds are known for {named(module, path)}, called on more than one input")
        number = self.tracer.trace(module, path, args[0].number)
        return self.values.made(number, args[0], inplace=bool(getattr(module, "inplace", False)))

    def _check_unread(self, at: dict[fx.Node, int], node: fx.Node, number: int) -> None:
        """Nobody may read a value in whose memory this node has written."""
        for other, result in self.results.items():
            shared = other is not node and self.values.shares(result, self.values.written)
            if shared and any(at[user] > number for user in other.users):
                raise UnsupportedLayer(
                    f"no bounds are known for {self._where(node)}, which writes in place into a value that is used "
                    "again: use the operation that is not in place"
                )

    def _where(self, node: fx.Node) -> str:
        stack = [name for name, _ in (node.meta.get("nn_module_stack") or {}).values()]
        module = self.reader.modules.get(stack[-1]) if stack else None
        return named(module, self.reader.path_in_model(stack[-1])) if module is not None else self.name

    def _filled(self, arguments: Any) -> Any:
        return fx.node.map_aggregate(arguments, lambda one: self.results[one] if isinstance(one, fx.Node) else one)


def _name(called: Callable | str) -> str:
    if isinstance(called, str):
        return called
    module = getattr(called, "__module__", None) or ""
    name = getattr(called, "__name__", repr(called))
    return (
        name if called in vars(operator).values() or not module else f"{module}.{name}".replace("torch._C._nn", "torch")
    )
