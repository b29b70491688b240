"""Tensor functions, traced once per input shape and replayed without Python or autograd."""

import operator
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

from ehrmeta.errors import DataError

Out = TypeVar("Out")
Shapes = tuple[tuple[torch.Size, torch.dtype, torch.device], ...]
_ONE_AT_A_TIME = threading.RLock()  # torch.fx keeps one tracer for the whole process


class Recorded(Generic[Out]):
    """Function of tensors that is traced after a few calls with the same shapes.

    ``torch.func.vmap`` and autograd rebuild the computation at every call. For small networks, this
    takes longer than the computation itself. After a few calls with the same shapes, the operators
    are recorded without duplicates, and later calls run only these. The results are the same, bit
    for bit.

    Parameters
    ----------
    function : callable
        Function of tensors and (named) tuples and dicts of tensors, without side effects. Its
        control flow may depend on shapes but not on values, and captured tensors must not change.
    plain_calls : int
        Ordinary calls with the same shapes before recording. Recording takes about as long as it
        saves in that many calls.
    compiled : bool
        Record at the first call and use ``torch.compile``, which needs a C++ compiler (on a GPU,
        Triton), takes tens of seconds per shape and may differ by rounding.

    Examples
    --------
    >>> import torch
    >>> double = Recorded(lambda x: 2.0 * x, plain_calls=0)
    >>> double(torch.ones(3))
    tensor([2., 2., 2.])
    """

    def __init__(
        self, function: Callable[..., Out], *, plain_calls: int = 20, compiled: bool = False
    ) -> None:
        self.function = function
        self.plain_calls = 0 if compiled else plain_calls
        self.compiled = compiled
        self._recordings: dict[Shapes, Callable[..., Out]] = {}
        self._calls: Counter[Shapes] = Counter()
        self._lock = threading.Lock()

    def __call__(self, *args: Any) -> Out:
        """Value of the function."""
        shapes = tuple((leaf.shape, leaf.dtype, leaf.device) for leaf in _leaves(args))
        recording = self._recordings.get(shapes)
        if recording is None:
            recording = self._first_calls(shapes, args)
        return recording(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles have no recordings."""
        return _unrecorded, (self.function, self.plain_calls, self.compiled)

    def _first_calls(self, shapes: Shapes, args: tuple[Any, ...]) -> Callable[..., Out]:
        with self._lock:
            self._calls[shapes] += 1
            if self._calls[shapes] <= self.plain_calls:
                return self.function
            if shapes not in self._recordings:
                self._recordings[shapes] = self._record(args)
            return self._recordings[shapes]

    def _record(self, args: tuple[Any, ...]) -> Callable[..., Out]:
        with _ONE_AT_A_TIME, torch.inference_mode(False), torch.no_grad():
            module = _traced(self.function, args)
        _run_once(module.graph)
        module.recompile()
        run: Callable[..., Out] = torch.compile(module) if self.compiled else module

        def replay(*args: Any) -> Out:
            with torch.no_grad():
                return run(*args)

        return replay


def _traced(function: Callable[..., Any], args: tuple[Any, ...]) -> GraphModule:
    try:
        return make_fx(function)(*_plain(args))
    except RuntimeError as error:
        if "tracing tensor" not in str(error):
            raise
        raise DataError(
            "an algorithm or a module branches on the value of a tensor (if, float(), item()), "
            "which may differ at the next call. Use torch.where, or let `Algorithm.at(progress)` "
            "return another algorithm for each stage of training."
        ) from error


def check_compiler(device: torch.device) -> None:
    """Check that a compiler for the device is installed.

    Raises
    ------
    DataError
    """
    if device.type == "cpu":
        needed = "a C++ compiler"
        installed = any(map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++")))
    else:
        needed, installed = "Triton", find_spec("triton") is not None
    if not installed:
        raise DataError(
            f"compile=True needs {needed}, which is not installed. Install it, or use "
            "compile=False, which records the gradient and gives the same numbers."
        )


def _leaves(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    else:
        for branch in tree.values() if isinstance(tree, Mapping) else tree:
            yield from _leaves(branch)


def _plain(tree: Any) -> Any:
    """The same tree with copies of the tensors, without autograd history or inference mode."""
    if isinstance(tree, Tensor):
        return torch.empty_like(tree, requires_grad=False).copy_(tree)
    if isinstance(tree, Mapping):
        return {name: _plain(branch) for name, branch in tree.items()}
    branches = [_plain(branch) for branch in tree]
    return type(tree)(*branches) if hasattr(tree, "_fields") else tuple(branches)


def _run_once(graph: Graph) -> None:
    """Remove unused and duplicate operators, if all are pure."""
    if not all(_is_pure(node) for node in graph.nodes if node.op == "call_function"):
        return
    first: dict[Any, Node] = {}
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        if node.target == torch.ops.aten.detach.default:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
            continue
        key = (node.target, _hashable(node.args), _hashable(node.kwargs))
        if key in first:
            node.replace_all_uses_with(first[key])
            graph.erase_node(node)
        first.setdefault(key, node)
    graph.eliminate_dead_code()


def _is_pure(node: Node) -> bool:
    """Whether the operator neither modifies its arguments nor draws random numbers."""
    target = node.target
    if target is operator.getitem:
        return True
    if not isinstance(target, torch._ops.OpOverload):
        return False
    return not target._schema.is_mutable and torch.Tag.nondeterministic_seeded not in target.tags


def _hashable(argument: Any) -> Any:
    """Arguments as a key that distinguishes 1, 1.0 and True, and 0.0 and -0.0."""
    if isinstance(argument, list | tuple):
        return (type(argument), *map(_hashable, argument))
    if isinstance(argument, dict):
        return tuple((name, _hashable(value)) for name, value in sorted(argument.items()))
    if isinstance(argument, Node):
        return argument
    if isinstance(argument, float):
        return argument.hex()
    return type(argument), argument


def _unrecorded(function: Callable[..., Out], plain_calls: int, compiled: bool) -> Recorded[Out]:
    return Recorded(function, plain_calls=plain_calls, compiled=compiled)
