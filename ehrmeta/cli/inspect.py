"""Contents of a model file, and the bundled data sets."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import click
from torch import Tensor

from ehrmeta.cli.messages import printable
from ehrmeta.data import list_datasets, read_card
from ehrmeta.estimators import Adapted, ConformalClassifier, ConformalRegressor
from ehrmeta.loading import load
from ehrmeta.nn import MLP
from ehrmeta.persistence import read_bundle
from ehrmeta.treatment import AdaptedResponse, TreatmentResponse


def describe_file(file: str, full: bool) -> None:
    """Print the contents of a model file."""
    tensors, metadata = read_bundle(file)
    if full:
        lines = [json.dumps(metadata, indent=2, ensure_ascii=False), *_shapes(tensors)]
    elif "belongs_to" in metadata:
        lines = ["checkpoint of a training, without rows of its table", _size(tensors)]
    else:
        lines = [*_summary(load(file)), _size(tensors)]
    click.echo("\n".join(map(printable, lines)))
    if metadata.get("names_rare_levels"):
        click.echo("\nThis file contains patient data: it names levels of fewer than 11 patients.")
    elif metadata.get("contains_patient_data") and "labels" not in metadata:
        click.echo(
            "\nThis file contains patient data: limits calibrated on fewer than 11 patients."
        )
    elif metadata.get("contains_patient_data"):
        click.echo("\nThis file contains patient data: the support rows and labels of its tasks.")
    if not full and not metadata.get("contains_patient_data"):
        click.echo("\nThis file contains no row and no label of any task; --full prints all of it.")


def _summary(loaded: Any) -> Iterator[str]:
    """Describe a model, and its adapted tasks if any, in a few lines."""
    if isinstance(loaded, TreatmentResponse | AdaptedResponse):
        yield from repr(loaded).splitlines()
        return
    if isinstance(loaded, Adapted):
        yield repr(loaded)
        model: Any = loaded.model
    else:
        if isinstance(loaded, ConformalRegressor | ConformalClassifier):
            yield f"{type(loaded).__name__}, calibrated after {loaded.shots} values"
            loaded = loaded.model
        model = loaded.model_
    origin, settings = model.provenance, model.settings
    yield f"{model.name} of {origin['saved'][:10]}, by ehrmeta {origin['ehrmeta']}"
    yield f"algorithm   {model.learner.algorithm!r}"
    yield f"backbone    {settings['backbone'] or MLP()!r}"
    if model.population is not None:
        population = settings["population"] or model.population
        yield f"population  {type(population).__name__}, as arrays"
    steps = f"{model.history[-1]['step']:,.0f} steps, " if model.history else ""
    yield f"trained on  {model.n_tasks:,} tasks, {steps}seed {origin['random_state']}"
    if model.schema is not None:
        for line in repr(model.schema).splitlines():
            role, _, text = line.partition("  ")
            yield f"{role:<10}  {text.strip()}"
    else:
        yield f"features    {', '.join(feature.name for feature in model.table.features)}"


def _size(tensors: Mapping[str, Tensor]) -> str:
    n_numbers = sum(tensor.numel() for tensor in tensors.values())
    return f"{len(tensors):,} arrays, {n_numbers:,} numbers"


def _shapes(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    width = max(map(len, tensors), default=0)
    for name, tensor in tensors.items():
        kind = str(tensor.dtype).removeprefix("torch.")
        yield f"{name:<{width}}  {kind:<8} {' x '.join(map(str, tensor.shape)) or 'one'}"


def list_data_sets() -> None:
    """Print the bundled data sets."""
    lines = [("name", "rows", "tasks", "licence", "what")]
    for name in list_datasets():
        card = read_card(name)
        counts = (f"{card['loaded'][n]:,}" for n in ("n_rows", "n_tasks"))
        lines.append((name, *counts, card["licence"], card["title"]))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for name, rows, tasks, licence, title in lines:
        size = f"{rows:>{widths[1]}}  {tasks:>{widths[2]}}"
        click.echo(f"{name:<{widths[0]}}  {size}  {licence:<{widths[3]}}  {title}")
