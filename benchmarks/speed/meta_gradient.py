"""Time of one second-order meta-gradient by method, after a check that all are equal."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.speed import methods
from benchmarks.speed.methods import COMPILED, LOW_RANK, METHODS, REFERENCE, Run
from benchmarks.speed.problem import Case, Problem, draw_problem
from benchmarks.suite.arrays import Array
from benchmarks.suite.record import Record, number, text_table
from benchmarks.suite.timing import interleave, timed_record
from ehrmeta.errors import EhrmetaError, MissingExtraError

TOLERANCE = 1e-3  # rounding of float32, and units near the kink of ReLU
MATRIX_PRODUCT = "matrix product"
BASE = Case(20, 64, 5, 10, 256, 3)
AXES = {"n_tasks": (64, 128, 256, 512), "shots": (5, 10, 20, 40), "steps": (1, 2, 4, 8)}


def compare_methods(
    problem: Problem,
    names: Sequence[str] = tuple(METHODS),
    *,
    seconds: float = 10.0,
    min_rounds: int = 5,
    required: Sequence[str] = (),
    seed: int = 0,
) -> list[Record]:
    """Time the methods on one batch after checking that their gradients agree.

    Parameters
    ----------
    problem : Problem
    names : sequence of str
        Of `METHODS`.
    seconds, min_rounds
        Of `interleave`.
    required : sequence of str
        Methods that must be installed; the others get a record without value if they are not.

    Returns
    -------
    list of Record
        ``ms`` with quartiles; ``ratio`` to MAML's default form (to the first method without that),
        ``ratio_compiled`` to the compiled one; ``gradient_error`` to ``torch.func``; ``gflops`` and
        ``share_of_product`` of the low-rank form, plain and compiled, relative to a matrix product
        of the same rows and width in the same rounds; ``padding``.

    Raises
    ------
    EhrmetaError
        A method returns another gradient.
    MissingExtraError
        A method in `required` is not installed.
    """
    started = time.perf_counter()
    runs: dict[str, Run] = {}
    absent: list[str] = []
    for name in names:
        try:
            runs[name] = METHODS[name](problem)
        except MissingExtraError:
            if name in required:
                raise
            absent.append(name)
    errors = check_equal({name: run() for name, run in runs.items()}, problem.name)
    calls: dict[str, Callable[[], object]] = {**runs, MATRIX_PRODUCT: _matrix_product(problem)}
    times = interleave(calls, seconds=seconds, min_rounds=min_rounds)
    product = times.pop(MATRIX_PRODUCT)

    record = partial(
        timed_record, problem.name, started, k=problem.shots, n_tasks=problem.n_tasks, seed=seed
    )
    ours = _form(problem)
    records = [record(name, "ms", 1e3 * values) for name, values in times.items()]
    base = times.get(ours, next(iter(times.values())))
    records += [record(name, "ratio", values / base) for name, values in times.items()]
    if COMPILED in times:
        records += [
            record(name, "ratio_compiled", values / times[COMPILED])
            for name, values in times.items()
        ]
    records += [record(name, "gradient_error", value) for name, value in errors.items()]
    records += [record(name, "ms", None, note="not installed") for name in absent]
    records += [record("", "padding", problem.padding)]
    rate = _gflops(_product_flops(problem), product)
    records += [record(MATRIX_PRODUCT, "gflops", rate)]
    low_rank = [LOW_RANK] + [COMPILED] * (ours == LOW_RANK)
    for name in (name for name in low_rank if name in times):
        useful = _gflops(_useful_flops(problem), times[name])
        records += [record(name, "gflops", useful)]
        records += [record(name, "share_of_product", useful / rate)]
    return records


def check_equal(gradients: Mapping[str, Mapping[str, Any]], case: str) -> dict[str, float]:
    """Relative difference of every method's gradient from that of ``torch.func``.

    Raises
    ------
    EhrmetaError
        The difference is larger than rounding errors.
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
                f"relative difference {error:.2g}, tolerance {TOLERANCE:g}. Fix it, or exclude it "
                "with --method."
            )
        errors[name] = error
    return errors


def measure_scaling(seconds: float = 10.0, seed: int = 0, device: str = "cpu") -> list[Record]:
    """Milliseconds of a meta-gradient in MAML's default form, along each axis of the problem."""
    started = time.perf_counter()
    records = []
    for axis, sizes in AXES.items():
        cases = {size: BASE._replace(**{axis: size}) for size in sizes}
        problems = {size: draw_problem(case, seed, device) for size, case in cases.items()}
        calls = {str(size): METHODS[_form(problem)](problem) for size, problem in problems.items()}
        times = interleave(calls, seconds=seconds / len(AXES))
        for size, problem in problems.items():
            form = _form(problem).removeprefix("ehrmeta, ")
            case, name = f"scaling in {axis} from {tuple(BASE)}", f"{axis} = {size}"
            about = {"k": problem.shots, "n_tasks": problem.n_tasks, "seed": seed, "note": form}
            records.append(timed_record(case, started, name, "ms", 1e3 * times[str(size)], **about))
    return records


def method_table(records: Sequence[Record]) -> str:
    """Table of one case: time by method, and floating-point operations per second."""
    by_key = {(record.method, record.metric): record for record in records}
    rows = []
    for name in dict.fromkeys(r.method for r in records if r.metric == "ms"):
        ms = by_key[name, "ms"]
        ratios = [by_key.get((name, metric)) for metric in ("ratio", "ratio_compiled")]
        error = by_key.get((name, "gradient_error"))
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
    product = by_key[MATRIX_PRODUCT, "gflops"]
    line = f"matrix product at this width: {number(product.value)} GFLOP/s"
    for name in (LOW_RANK, COMPILED):
        if (useful := by_key.get((name, "gflops"))) is not None:
            share = by_key[name, "share_of_product"].value or math.nan
            form = name.removeprefix("ehrmeta, ")
            line += f"; {form}: {number(useful.value)} GFLOP/s useful, {100 * share:.0f} % of it"
    padding = by_key["", "padding"].value or 0.0
    return "\n".join([*lines, f"{line}; padding {100 * padding:.0f} % of the points"])


def scaling_table(records: Sequence[Record]) -> str:
    """Table of the time along each axis, with the ratio to the line above."""
    rows, before = [], None
    for record in records:
        growth = ""
        if before is not None and before.case == record.case and before.value and record.value:
            growth = f"{record.value / before.value:.2f} x"
        rows.append([record.method, number(record.value), growth, record.note])
        before = record
    heading = [f"cost of a meta-gradient around {tuple(BASE)}", "ms", "as it doubles", "form"]
    return text_table(heading, rows)


def _form(problem: Problem) -> str:
    """Name of the form that MAML uses by default."""
    return LOW_RANK if methods.prefers_low_rank(problem) else methods.MATERIALISED


def _flat(gradient: Mapping[str, Any], names: Mapping[str, Any]) -> Array:
    """All parameters in one vector, from arrays of any package."""
    arrays = (gradient[name] for name in names)
    on_cpu = (array.cpu() if torch.is_tensor(array) else array for array in arrays)
    return np.concatenate([np.asarray(array, np.float64).ravel() for array in on_cpu])


def _matrix_product(problem: Problem) -> Callable[[], torch.Tensor]:
    """Matrix product (task x point, width) times (width, width) into preallocated memory."""
    n_points, width = problem.n_tasks * (problem.shots + problem.queries), problem.widths[1]
    device = problem.support.y.device
    left, right = (torch.randn(n, width, device=device) for n in (n_points, width))
    product = torch.empty_like(left)
    return lambda: torch.mm(left, right, out=product)


def _product_flops(problem: Problem) -> int:
    n_points, width = problem.n_tasks * (problem.shots + problem.queries), problem.widths[1]
    return 2 * n_points * width * width


def _useful_flops(problem: Problem) -> int:
    """Floating-point operations for rows that are not padding."""
    sizes = zip(problem.support.mask.sum(1), problem.query.mask.sum(1), strict=True)
    return sum(meta_gradient_flops(problem.widths, int(n), int(m), problem.steps) for n, m in sizes)


def _gflops(flops: int, seconds: Array) -> Array:
    return flops / seconds / 1e9


def meta_gradient_flops(
    widths: Sequence[int], n_support: int, n_query: int, steps: int, n_tasks: int = 1
) -> int:
    r"""Floating-point operations of the matrix products, two per multiply-add.

    With ``m`` keys a layer ``i -> o`` costs ``i o + m (i + o)`` multiply-adds a point forward
    (``W x``, ``K x`` and ``V^T (Kx + 1)``) and as many to carry an error back. Step ``s`` of the
    inner loop runs the support forward through all layers and back through all but the first,
    with ``m = (s - 1) n`` keys; the query runs forward with ``m = S n``. The first layer sees the
    same inputs at every step, so its values add up on one block of ``n`` keys.

    The outer gradient costs two products of the same size for every product of two factors that
    depend on the parameters, and one if a factor is data: the first layer's ``W x``, and its values
    times ``Kx + 1``, whose ``Kx`` itself needs none. Activations, sums, loss and padding are not
    counted.

    Parameters
    ----------
    widths : sequence of int
        Features, hidden units, outputs.
    n_support, n_query : int
        Points of each task.
    steps : int
        Inner steps S.
    n_tasks : int

    Examples
    --------
    One task of one point each, through one hidden unit: 9 multiply-adds forward, 13 backward.

    >>> meta_gradient_flops((1, 1, 1), 1, 1, 1)
    44
    """
    layers = list(zip(widths[:-1], widths[1:], strict=True))
    passes = [(n_support, s * n_support, True) for s in range(steps)]
    passes.append((n_query, steps * n_support, False))
    multiply_adds = 0
    for n_points, n_keys, is_step in passes:
        for layer, (i, o) in enumerate(layers):
            if layer == 0:
                keys = min(n_keys, n_support)
                multiply_adds += n_points * (2 * i * o + keys * (i + 2 * o))
                continue
            forward = n_points * (i * o + n_keys * (i + o))
            multiply_adds += 3 * forward * (2 if is_step else 1)
    return 2 * n_tasks * multiply_adds
