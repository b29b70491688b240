"""Adaptation and prediction of one task as one graph, with the encoding of its rows beside."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ehrmeta.errors import BundleError, DataError, DataWarning, MissingExtraError, warn
from ehrmeta.estimators.export.linear_algebra import ELEMENTARY
from ehrmeta.estimators.learner import Learner
from ehrmeta.estimators.meta_model import MetaModel
from ehrmeta.nn.batch import TaskRows, TaskSet, padded_set
from ehrmeta.whole_file import replace_file

FILES: dict[str, str] = {"torch": "model.pt2", "onnx": "model.onnx"}
INPUTS = (
    *("support_x", "support_measured", "support_time", "support_y", "support_mask"),
    *("query_x", "query_time"),
)


def export_model(
    model: MetaModel, folder: str | os.PathLike[str], *, format: str, max_shots: int, n_queries: int
) -> None:
    """Write the graph and ``encoder.json`` into a folder; see ``MetaRegressor.export``."""
    if format not in FILES:
        raise DataError(f"format must be 'torch' or 'onnx', got {format!r}.")
    if min(max_shots, n_queries) < 1:
        raise DataError("max_shots and n_queries must be 1 or more.")
    if model.population is not None:
        raise BundleError(
            "a model with a population model below it cannot be exported: trees are no tensor "
            "operators. Fit without population=, or with DeepMixedEffects(trees=False)."
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    graph = OneTask(model.learner, timed=model.table.timed).eval()
    example = _example(model, max_shots, n_queries)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own
        outputs = graph.names(*example)
        program = torch.export.export(graph, example, strict=False)
        _write(program, folder / FILES[format], format, outputs)
    text = json.dumps(_description(model, max_shots, n_queries, outputs), indent=1)
    replace_file(folder / "encoder.json", lambda path: path.write_text(text, encoding="utf-8"))


class OneTask(torch.nn.Module):
    """Adapts to the padded support of one task and predicts its query.

    Inputs are encoded rows: features known at the row (point, column), measured features
    (point, column) with NaN where missing, time (point,) in float64, outcomes (point,) on the
    learner's scale and the mask of real support rows, which come first and sorted by time.
    """

    def __init__(self, learner: Learner, *, timed: bool) -> None:
        super().__init__()
        self.learner, self.timed = learner, timed
        for name, value in learner.params.items():
            self.register_buffer(name.replace(".", "__"), value.detach().cpu().clone())

    def forward(
        self,
        support_x: Tensor,
        support_measured: Tensor,
        support_time: Tensor,
        support_y: Tensor,
        support_mask: Tensor,
        query_x: Tensor,
        query_time: Tensor,
    ) -> tuple[Tensor, ...]:
        """Parameters of the predictive distribution of every query row, in the order of `names`."""
        support = self._rows(support_x, support_measured, support_time, support_y)
        measured = torch.full((len(query_x), support_measured.shape[1]), torch.nan)
        unknown = torch.zeros_like(query_x[:, 0]) if query_x.shape[1] else query_time.float()
        query = self._rows(query_x, measured, query_time, unknown)
        every = torch.ones(len(query_time), dtype=torch.bool)
        params = {n: getattr(self, n.replace(".", "__")) for n in self.learner.params}
        algorithm, spec = self.learner.algorithm, self.learner.spec
        state = algorithm.adapt(
            spec, params, self._set(support, support_mask, support, support_mask)
        )
        predicted = algorithm.predict(
            spec, params, state, self._set(query, every, support, support_mask)
        )
        self._names = tuple(predicted)
        return tuple(predicted.values())

    def names(self, *example: Tensor) -> tuple[str, ...]:
        """Names of the outputs."""
        self.forward(*example)
        return self._names

    def _rows(self, x: Tensor, measured: Tensor, time: Tensor, y: Tensor) -> TaskRows:
        index = torch.arange(len(time))
        starts = torch.tensor([0, len(time)])
        return TaskRows(x, measured, time, y, index, starts, self.timed, torch.zeros_like(y))

    def _set(self, rows: TaskRows, mask: Tensor, source: TaskRows, source_mask: Tensor) -> TaskSet:
        padded = padded_set(
            rows,
            rows.origin[None],
            mask[None],
            source=source,
            source_index=source.origin[None],
            source_mask=source_mask[None],
            time_unit=self.learner.time_unit,
        )
        to = self.learner.dtype
        return TaskSet(
            *(part[0].to(to) if part.dtype == torch.float32 else part[0] for part in padded)
        )


def _example(model: MetaModel, max_shots: int, n_queries: int) -> tuple[Tensor, ...]:
    """Inputs of the shapes of a graph."""
    none = model.no_rows()
    n_fixed, n_measured = none.x.shape[1], none.measured.shape[1]
    time = torch.arange(max_shots + n_queries, dtype=torch.float64) * model.table.time_unit
    return (
        torch.zeros(max_shots, n_fixed),
        torch.zeros(max_shots, n_measured),
        time[:max_shots],
        torch.zeros(max_shots),
        torch.arange(max_shots) < max(max_shots // 2, 1),
        torch.zeros(n_queries, n_fixed),
        time[max_shots:],
    )


def _write(program: Any, path: Path, format: str, outputs: tuple[str, ...]) -> None:
    table = torch.export.default_decompositions()
    for operator, function in ELEMENTARY.items():
        table[operator] = function
    program = program.run_decompositions(table)
    if format == "torch":
        replace_file(path, lambda temporary: _save(program, temporary))
        return
    try:
        import_module("onnxscript")
    except ImportError as error:
        raise MissingExtraError(
            "format='onnx' needs onnx and onnxscript. Install them by pip install 'ehrmeta[onnx]'."
        ) from error
    exported: Any = torch.onnx.export(
        program, input_names=INPUTS, output_names=outputs, dynamo=True, verbose=False
    )
    replace_file(path, lambda temporary: exported.save(str(temporary)))


def _save(program: Any, path: Path) -> None:
    program.example_inputs = None  # the only part that would be a pickle
    with path.open("wb") as file:
        torch.export.save(program, file)


def _description(
    model: MetaModel, max_shots: int, n_queries: int, outputs: tuple[str, ...]
) -> Mapping[str, Any]:
    """What a program needs to encode rows and to read the outputs."""
    encoder, lost = model.table.encoder.without_rare_levels()
    if lost:
        counts = ", ".join(f"'{name}': {n:,}" for name, n in lost.items())
        warn(
            f"levels of fewer than eleven patients are not named in the file ({counts}): encode "
            "them as the average level.",
            DataWarning,
        )
    return {
        "inputs": list(INPUTS),
        "outputs": list(outputs),
        "max_shots": max_shots,
        "n_queries": n_queries,
        "x": [*encoder.fixed_names, *(["clock"] if model.table.clock_is_feature else [])],
        "measured": list(encoder.measured_names),
        "table": replace(model.table, encoder=encoder).to_dict(),
        "schema": None if model.schema is None else model.schema.to_dict(),
        "likelihood": type(model.learner.spec.likelihood).__name__,
        "parameters_sha256": model.digests([])[0],
    }
