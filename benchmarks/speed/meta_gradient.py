"""Time of one second-order meta-gradient, by method, all shown to compute the same one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.speed import own_methods, peers
from benchmarks.speed.flops import meta_gradient_flops
from benchmarks.speed.problem import Problem
from benchmarks.suite.record import Record
from benchmarks.suite.text_table import number, text_table
from benchmarks.suite.timing import Times, interleave, quartiles
from ehrmeta.errors import EhrmetaError, MissingExtraError

__all__ = ["METHODS", "Method", "check_equal", "compare_methods", "method_table"]

Run = Callable[[], Mapping[str, Any]]
Method = Callable[[Problem], Run]

LOW_RANK, MATERIALISED = "ehrmeta, low rank", "ehrmeta, materialised"
COMPILED = "ehrmeta, compiled"
REFERENCE = "torch.func vmap"
METHODS: dict[str, Method] = {
    LOW_RANK: own_methods.low_rank,
    MATERIALISED: own_methods.materialised,
    COMPILED: own_methods.compiled,
    "ehrmeta, Meta-SGD": own_methods.meta_sgd,
    REFERENCE: peers.torch_func,
    "JAX, jitted vmap": peers.jax_vmap,
    "task loop, autograd": peers.autograd_loop,
    "task loop, higher": peers.higher_loop,
}
# float32 rounding, and now and then a unit that sits on the other side of ReLU's kink
TOLERANCE = 1e-3
MATRIX_PRODUCT = "matrix product"


def compare_methods(
    problem: Problem,
    methods: Mapping[str, Method] = METHODS,
    *,
    seconds: float = 10.0,
    min_rounds: int = 5,
    asked: Sequence[str] = (),
    seed: int = 0,
) -> list[Record]:
    """Time the methods on one batch after checking that their gradients agree.

    Parameters
    ----------
    problem : Problem
    methods : mapping
        Name -> function that prepares a problem and returns what is timed.
    seconds, min_rounds
        Of `interleave`.
    asked : sequence of str
        Methods that must be there; another one that is not installed gets a record without value.

    Returns
    -------
    list of Record
        ``ms`` of every method with quartiles; ``ratio`` to the form that MAML takes by itself (to
        the first method where that was not asked for), ``ratio_compiled`` to the compiled one;
        ``gradient_error`` to ``torch.func``; ``gflops`` and ``share_of_product`` of the low-rank
        form, plain and compiled, against a matrix product of the same rows and width, timed in
        the same rounds; ``padding``.

    Raises
    ------
    EhrmetaError
        A method returns another gradient.
    MissingExtraError
        A method in `asked` is not installed.
    """
    started = time.perf_counter()
    runs: dict[str, Run] = {}
    absent: list[str] = []
    for name, prepare in methods.items():
        try:
            runs[name] = prepare(problem)
        except MissingExtraError:
            if name in asked:
                raise
            absent.append(name)
    errors = check_equal({name: run() for name, run in runs.items()}, problem.name)
    calls: dict[str, Callable[[], object]] = {**runs, MATRIX_PRODUCT: _matrix_product(problem)}
    times = interleave(calls, seconds=seconds, min_rounds=min_rounds)
    product = times.pop(MATRIX_PRODUCT)

    def record(method: str, metric: str, *values: float, note: str = "") -> Record:
        value, low, high = values if len(values) == 3 else (*(values or (None,)), None, None)
        return Record(
            suite="speed",
            case=problem.name,
            method=method,
            metric=metric,
            value=value,
            low=low,
            high=high,
            k=problem.shots,
            n_tasks=problem.n_tasks,
            seconds=time.perf_counter() - started,
            seed=seed,
            note=note,
        )

    ours = LOW_RANK if own_methods.prefers_low_rank(problem) else MATERIALISED
    records = [record(name, "ms", *quartiles(1e3 * values)) for name, values in times.items()]
    base = times.get(ours, next(iter(times.values())))
    records += [record(name, "ratio", *quartiles(values / base)) for name, values in times.items()]
    if COMPILED in times:
        records += [
            record(name, "ratio_compiled", *quartiles(values / times[COMPILED]))
            for name, values in times.items()
        ]
    records += [record(name, "gradient_error", value) for name, value in errors.items()]
    records += [record(name, "ms", note="not installed") for name in absent]
    records += [record("", "padding", problem.padding)]
    rate = _gflops(_product_flops(problem), product)
    records += [record(MATRIX_PRODUCT, "gflops", *quartiles(rate))]
    low_rank = [LOW_RANK] + [COMPILED] * (ours == LOW_RANK)
    for name in (name for name in low_rank if name in times):
        own_rate = _gflops(_useful_flops(problem), times[name])
        records += [record(name, "gflops", *quartiles(own_rate))]
        records += [record(name, "share_of_product", *quartiles(own_rate / rate))]
    return records


def check_equal(gradients: Mapping[str, Mapping[str, Any]], case: str) -> dict[str, float]:
    """Relative difference of every method's gradient from that of ``torch.func``.

    Raises
    ------
    EhrmetaError
        It is not rounding: the method computes something else.
    """
    reference = gradients.get(REFERENCE) or next(iter(gradients.values()))
    expected = _flat(reference, reference)
    size = float(np.linalg.norm(expected))
    errors = {}
    for name, gradient in gradients.items():
        error = float(np.linalg.norm(_flat(gradient, reference) - expected)) / size
        if not error <= TOLERANCE:
            raise EhrmetaError(
                f"'{name}' returns another meta-gradient than '{REFERENCE}' on the case {case}: "
                f"relative difference {error:.2g}, at most {TOLERANCE:g} is rounding. Its time "
                "would mean nothing; mend it or leave it out with --method."
            )
        errors[name] = error
    return errors


def method_table(records: Sequence[Record]) -> str:
    """One case as a table: methods by time, with what the arithmetic comes to."""
    found = {(record.method, record.metric): record for record in records}
    rows = []
    for name in dict.fromkeys(r.method for r in records if r.metric == "ms"):
        ms = found[name, "ms"]
        ratios = [found.get((name, metric)) for metric in ("ratio", "ratio_compiled")]
        error = found.get((name, "gradient_error"))
        rows.append(
            [
                name,
                ms.note or number(ms.value),
                "" if ms.low is None else f"{number(ms.low)} to {number(ms.high)}",
                *("" if ratio is None else f"{number(ratio.value)} x" for ratio in ratios),
                "" if error is None or error.value is None else f"{error.value:.0e}",
            ]
        )
    heading = ["method", "ms", "quartiles", "/ ours", "/ compiled", "gradient differs by"]
    lines = [f"meta-gradient, {records[0].case}", text_table(heading, rows)]
    product = found[MATRIX_PRODUCT, "gflops"]
    line = f"matrix product at this width: {number(product.value)} GFLOP/s"
    for name in (LOW_RANK, COMPILED):
        if (own := found.get((name, "gflops"))) is not None:
            share = found[name, "share_of_product"].value or math.nan
            form = name.removeprefix("ehrmeta, ")
            line += f"; {form}: {number(own.value)} GFLOP/s useful, {100 * share:.0f} % of it"
    padding = found["", "padding"].value or 0.0
    return "\n".join([*lines, f"{line}; padding {100 * padding:.0f} % of the points"])


def _flat(gradient: Mapping[str, Any], names: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """All parameters in one vector, whichever package's arrays they are."""
    arrays = (gradient[name] for name in names)
    on_cpu = (array.cpu() if torch.is_tensor(array) else array for array in arrays)
    return np.concatenate([np.asarray(array, np.float64).ravel() for array in on_cpu])


def _matrix_product(problem: Problem) -> Callable[[], torch.Tensor]:
    """(task x point, width) times (width, width), into memory that is there already."""
    n_points, width = problem.n_tasks * (problem.shots + problem.queries), problem.widths[1]
    device = problem.support.y.device
    left, right = (
        torch.randn(n_points, width, device=device),
        torch.randn(width, width, device=device),
    )
    product = torch.empty_like(left)
    return lambda: torch.mm(left, right, out=product)


def _product_flops(problem: Problem) -> int:
    n_points, width = problem.n_tasks * (problem.shots + problem.queries), problem.widths[1]
    return 2 * n_points * width * width


def _useful_flops(problem: Problem) -> int:
    """Those of the real rows only."""
    sizes = zip(problem.support.mask.sum(1), problem.query.mask.sum(1), strict=True)
    return sum(meta_gradient_flops(problem.widths, int(n), int(m), problem.steps) for n, m in sizes)


def _gflops(flops: int, seconds: Times) -> Times:
    return flops / seconds / 1e9
