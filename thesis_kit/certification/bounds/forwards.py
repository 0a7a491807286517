"""Models with a ``forward`` of their own, read by ``torch.fx``: which functions of torch they call, in which order.

The trace is made in evaluation mode, beside a few random images, so that code that asks for shapes gets numbers.
Layers are taken as in ``layers.py``; a function, method or operator as in ``functions.py``. Control flow that depends
on pixels, sums over images, products of two values and whatever else has no bounds is refused by name. So is writing in
place into a value that is read again, which a list of operations cannot tell.
"""

from __future__ import annotations

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
    reader = _Reader(tracer, path, named(module, path), value)
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
    reader.check_unread(graph)
    return reader.output(graph)


class _Root(nn.Module):
    """Calls a module or function on one input, so that it is traced as it is called."""

    def __init__(self, inner: Callable):
        super().__init__()
        self.inner = inner

    def forward(self, x: object) -> object:
        """What it answers."""
        return self.inner(x)


class _Proxy(fx.Proxy):
    """Stands for a value in the code that is traced; what asks for its shape hears that of a few random images."""

    def __getattr__(self, name: str) -> Any:
        if name in ("shape", "ndim", "dtype", "device", "is_cuda", "requires_grad"):
            return getattr(self.tracer.probe(self.node), name)
        return super().__getattr__(name)

    def __len__(self) -> int:
        return len(self.tracer.probe(self.node))


class _Reader(fx.Tracer):
    """Makes steps of the calls in the order in which they are made; what does not depend on the image is computed.

    It stops at known layers, and holds tensors itself, so that the model stays as it was.
    """

    def __init__(self, tracer: Tracer, path: str, name: str, value: int):
        super().__init__()
        self.tracer, self.above, self.name, self.value = tracer, path, name, value
        self.values, self.results, self.modules, self.writes = Values(tracer), {}, {}, {}

    def probe(self, node: fx.Node) -> Tensor:
        """The value of a node at a few images."""
        if not self.values.traced(self.results[node]):
            raise TypeError("several values have no shape")
        return self.values.probe(self.results[node])

    def check_unread(self, graph: fx.Graph) -> None:
        """Nobody may read a value in whose memory something was written before."""
        at = {node: number for number, node in enumerate(graph.nodes)}
        for node, memory in self.writes.items():
            for other, result in self.results.items():
                shared = at[other] < at[node] and self.values.shares(result, memory)
                if shared and any(at[user] > at[node] for user in other.users):
                    raise UnsupportedLayer(
                        f"no bounds are known for {self._where(node)}, which writes in place into a value that is used "
                        "again: use the operation that is not in place"
                    )

    def output(self, graph: fx.Graph) -> int:
        """The number of what the graph returns."""
        (answer,) = self._filled(next(node for node in graph.nodes if node.op == "output").args)
        if not self.values.traced(answer):
            kind = type(answer).__name__.removeprefix("immutable_")
            raise UnsupportedLayer(
                f"no bounds are known for {self.name}, which returns a {kind}, not one tensor made from its input: "
                "bound the part that makes the logits"
            )
        return answer.number

    # What torch.fx asks of a tracer.

    def proxy(self, node: fx.Node) -> _Proxy:
        """What stands for a node."""
        return _Proxy(node, self)

    def create_proxy(self, kind: str, target: Any, args: tuple, kwargs: dict, *rest: Any, **named: Any) -> Any:
        """The proxy of a new node, or its result where that does not depend on the image."""
        proxy = super().create_proxy(kind, target, args, kwargs, *rest, **named)
        result = self.values.new(self.value) if kind == "placeholder" else self._call(proxy.node)
        self.results[proxy.node] = result
        return proxy if self.values.anywhere(result) else result

    def create_arg(self, a: Any) -> Any:
        """Tensors are kept here."""
        if isinstance(a, Tensor):
            node = self.create_node("get_attr", "tensor", (), {})
            self.results[node] = a
            return node
        return super().create_arg(a)

    def iter(self, obj: fx.Proxy) -> Any:
        """Several values one by one."""
        if isinstance(self.results.get(obj.node), list):
            return iter([obj[i] for i in range(len(self.results[obj.node]))])
        return super().iter(obj)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict) -> Any:
        """Parameters are numbers, not parts of the trace."""
        return attr_val

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Known layers, and torch's own that are refused by name."""
        of_torch = type(m).__module__.startswith("torch.nn.modules")
        return not isinstance(m, nn.Sequential) and (self.tracer.knows(m) or of_torch)

    def path_of_module(self, mod: nn.Module) -> str:
        """A module's path in the trace; one that is no part of the model is called by its class."""
        try:
            return super().path_of_module(mod)
        except NameError:
            known = (name for name, module in self.modules.items() if module is mod)
            return next(known, f"inner.{type(mod).__name__}_{len(self.modules)}")

    def call_module(self, m: nn.Module, forward: Callable, args: tuple, kwargs: dict) -> Any:
        """Every module that is called must be what it seems."""
        name = self.path_of_module(m)
        self.modules[name] = m
        if name != "inner":
            check_plain(m, self._path(name))
        return super().call_module(m, forward, args, kwargs)

    def _call(self, node: fx.Node) -> Any:
        args, kwargs = self._filled(node.args), self._filled(node.kwargs)
        self.values.written = None
        result = (self._layer if node.op == "call_module" else self._function)(node, args, kwargs)
        if self.values.written is not None:
            self.writes[node] = self.values.written
        return result

    def _function(self, node: fx.Node, args: tuple, kwargs: dict) -> Any:
        if not self.values.anywhere((args, kwargs)):
            return (
                getattr(args[0], node.target)(*args[1:], **kwargs)
                if node.op == "call_method"
                else node.target(*args, **kwargs)
            )
        called = f".{node.target}" if node.op == "call_method" else _name(node.target)
        known = METHODS if node.op == "call_method" else FUNCTIONS
        try:
            if node.target not in known:
                raise Unbounded
            return known[node.target](self.values, *args, **kwargs)
        except Unbounded as reason:
            said = f" ({reason})" if str(reason) else ""
        except (TypeError, ValueError, RuntimeError, IndexError) as error:
            said = f" in a way that is not known ({str(error).partition(chr(10))[0]})"
        raise UnsupportedLayer(f"no bounds are known for {self._where(node)}, which calls {called}{said}")

    def _layer(self, node: fx.Node, args: tuple, kwargs: dict) -> Any:
        module, path = self.modules[node.target], self._path(node.target)
        if len(args) != 1 or kwargs or not self.values.traced(args[0]):
            raise UnsupportedLayer(f"no bounds are known for {named(module, path)}, called on more than one input")
        number, (writes, shares) = self.tracer.trace(module, path, args[0].number), self.tracer.touches(module)
        return self.values.made(number, args[0], inplace=writes, shares=shares)

    def _path(self, name: str) -> str:
        """A module's path in the whole model from its path in the trace."""
        return ".".join(part for part in (self.above, name.partition("inner")[2].strip(".")) if part)

    def _where(self, node: fx.Node) -> str:
        stack = [name for name, _ in (node.meta.get("nn_module_stack") or {}).values()]
        known = stack and stack[-1] in self.modules
        return named(self.modules[stack[-1]], self._path(stack[-1])) if known else self.name

    def _filled(self, arguments: Any) -> Any:
        return fx.node.map_aggregate(arguments, lambda one: self.results[one] if isinstance(one, fx.Node) else one)


def _name(called: Callable) -> str:
    name, module = getattr(called, "__name__", repr(called)), getattr(called, "__module__", None) or ""
    return f"{module}.{name}" if module.startswith("torch.nn") else name
