"""A study in words: what was found, what mattered, what a search would try."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np

from ehrmeta.ranges import Choice, declared_ranges
from ehrmeta.tuning.compared import REASON, compared, in_full
from ehrmeta.tuning.search import best_trial
from ehrmeta.tuning.space import Dimension, with_parts

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

__all__ = ["declared_table", "space_table", "study_summary"]

_FEWEST = 10  # trials, to say what mattered


def study_summary(study: optuna.Study) -> str:
    """The best trial, how many ended how, and which parameters mattered.

    The importance of a parameter is the share of the spread between good and other trials that it
    explains alone (PED-ANOVA, arXiv:2304.10255): a hint, not a test, and from few trials a vague
    one. It counts all trials by their error in the first fold, those given up early too.
    """
    trials = study.get_trials(deepcopy=False)
    failed = sum(trial.state.name == "FAIL" for trial in trials)
    full = len(in_full(study))
    early = sum(trial.state.is_finished() for trial in trials) - full - failed
    names = study.metric_names or ["error"]
    best = best_trial(study)
    values = ", ".join(f"{n} {v:.4g}" for n, v in zip(names, best.values, strict=True))
    lines = [
        f"best of {len(trials)} trials: {values} (trial {best.number})",
        *(f"  {name} = {_shown(value)}" for name, value in best.params.items()),
        f"{full} trials judged in full, {early} given up early, {failed} failed",
    ]
    diverged = sum(str(t.user_attrs.get(REASON, "")).startswith("diverged") for t in trials)
    if diverged:
        lines.append(f"  {diverged} of them because training diverged")
    view = compared(study)
    seen = view.get_trials(deepcopy=False)
    if len(seen) < _FEWEST or len({trial.values[0] for trial in seen}) == 1:
        return "\n".join(
            [*lines, f"fewer than {_FEWEST} different trials: no word on what mattered"]
        )
    lines.append("what mattered in the first fold, and where the best quarter of the trials lies:")
    good = _best_quarter(view, seen)
    for name, share in _importances(view).items():
        lines.append(f"  {name}: {100 * share:.0f} %, {_where(name, good)}")
    if len(names) > 1:
        lines.append(f"{len(study.best_trials)} trials are not beaten in everything at once")
    return "\n".join(lines)


def space_table(space: Sequence[Dimension], model: Any) -> str:
    """What a search would try: name, default, range and condition of every parameter.

    Parameters
    ----------
    space : sequence of Dimension
        From `read_space`.
    model : estimator
        Whose values are the defaults, from `with_parts`.
    """
    defaults = with_parts(model).get_params()
    rows = [("parameter", "default", "search", "only when")]
    for dimension in space:
        default = "" if dimension.name != dimension.parameter else defaults[dimension.parameter]
        if isinstance(dimension.range, Choice) and hasattr(default, "get_params"):
            default = type(default).__name__
        condition = ", ".join(f"{name} = {value}" for name, value in dimension.when.items())
        rows.append((dimension.name, str(default), str(dimension.range), condition))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(
        "  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[3]]).rstrip()
        for row in rows
    )


def declared_table(parts: Sequence[type]) -> str:
    """What classes declare, as a Markdown table: class, parameter, default, range, condition."""
    rows = ["| class | parameter | default | searched | only when |", "|---|---|---|---|---|"]
    for part in parts:
        defaults = signature(part).parameters
        for name, found in declared_ranges(part).items():
            shown = str(found).replace("|", "or")
            when = ", ".join(f"{other} = {value}" for other, value in found.when.items())
            default = str(defaults[name].default)
            rows.append(f"| `{part.__name__}` | `{name}` | {default} | {shown} | {when} |")
    return "\n".join(rows)


def _importances(study: optuna.Study) -> dict[str, float]:
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return optuna.importance.get_param_importances(study)


def _best_quarter(study: optuna.Study, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    down = study.directions[0].name == "MAXIMIZE"
    ranked = sorted(trials, key=lambda trial: trial.values[0], reverse=down)
    return ranked[: max(2, len(ranked) // 4)]


def _where(name: str, trials: Sequence[FrozenTrial]) -> str:
    values = [trial.params[name] for trial in trials if name in trial.params]
    if not values:
        return "not used by them"
    if all(isinstance(value, int | float) for value in values):
        return f"{_shown(np.min(values))} to {_shown(np.max(values))}"
    return " or ".join(dict.fromkeys(map(str, values)))


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)
