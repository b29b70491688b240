"""Search space of hyper-parameters: declared ranges, and ranges given by the user."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import TYPE_CHECKING, Any

from sklearn.base import BaseEstimator, clone

from ehrmeta.errors import DataError, Remedy, did_you_mean
from ehrmeta.nn.mlp import MLP
from ehrmeta.ranges import Choice, Range, declared_ranges

if TYPE_CHECKING:
    from optuna.trial import Trial

Suggest = Callable[["Trial"], Mapping[str, Any]]
# Names of parameters with a declared range; ranges by name; or an Optuna-style function.
Space = Sequence[str] | Mapping[str, Any] | Suggest
_WORDS = {"true": True, "false": False, "none": None}


@dataclass(frozen=True)
class Dimension:
    """Dimension of a search space: a parameter and its range.

    Parameters
    ----------
    name : str
        Name in the study. If an algorithm or backbone is chosen from several, its parameters are
        named after its class: ``MAML__inner_lr``.
    parameter : str
        Name in the estimator: ``algorithm__inner_lr``.
    range : Range or Choice
    when : mapping
        Values that other parameters of the estimator must have for this one to be searched.
    """

    name: str
    parameter: str
    range: Range | Choice
    when: Mapping[str, Any] = field(default_factory=dict)

    def applies(self, model: BaseEstimator) -> bool:
        """Whether the current parameters of a model meet the conditions `when`."""
        values = model.get_params()
        return all(_label(values[name]) == _label(value) for name, value in self.when.items())


def read_space(estimator: BaseEstimator, space: Space | None = None) -> tuple[Dimension, ...]:
    """Dimensions of a search: choices of parts first, conditional parameters last.

    Parameters
    ----------
    estimator : estimator
        An algorithm or backbone that is None is replaced by its default.
    space : sequence or mapping, optional
        Names of parameters with a declared range, or ranges by name: ``(low, high)``, ``(low, high,
        "log")``, a list of choices, a `Range` or `Choice`, or None for the declared one. Parts in a
        list, such as ``[MAML(), MetaSGD()]``, add their declared ranges. By default every parameter
        with a declared range.

    Raises
    ------
    DataError
        A name or a range cannot be searched.

    Examples
    --------
    >>> from ehrmeta import MAML, MetaRegressor
    >>> model = MetaRegressor(MAML())
    >>> [d.name for d in read_space(model, ["algorithm__inner_lr", "learning_rate"])]
    ['algorithm__inner_lr', 'learning_rate']
    """
    model = with_parts(estimator)
    declared = {d.parameter: d for d in _declared(model)}
    if space is None:
        return tuple(sorted(declared.values(), key=lambda d: bool(d.when)))
    if isinstance(space, Mapping):
        wanted = dict(space)
    elif isinstance(space, list | tuple):
        wanted = dict.fromkeys(space)
    else:
        raise DataError(
            f"space must be a list of names, a dict of ranges or a function, not {space!r}."
        )
    if not wanted:
        raise DataError("the space is empty: name at least one parameter to search.")
    parts = {}
    for name, value in wanted.items():
        choices = value.values if isinstance(value, Choice) else value
        if isinstance(value, Choice | list) and choices and all(map(_is_part, choices)):
            parts[name] = choices
    known = _check_known(wanted, model, parts)
    dimensions = [
        _dimension(name, value, declared.get(name))
        for name, value in wanted.items()
        if not any(name.startswith(f"{part}__") for part in parts)
    ]
    for name, values in parts.items():
        dimensions += _of_parts(name, values, wanted)
    for dimension in dimensions:
        for other in dimension.when:
            if other not in known:
                raise DataError(
                    f"'{dimension.parameter}' in the space depends on '{other}', which is not a "
                    f"parameter. {did_you_mean(other, sorted(known))}"
                )
    return tuple(sorted(dimensions, key=lambda d: (d.parameter not in parts, bool(d.when))))


def suggested(
    space: Sequence[Dimension] | Suggest, trial: Trial, model: BaseEstimator
) -> dict[str, Any]:
    """Values of one trial, by parameter; each is also set on `model`."""
    if callable(space):
        drawn = space(trial)
        if not isinstance(drawn, Mapping):
            raise DataError(
                f"a space given as a function must return a dict of parameters, not {drawn!r}."
            )
        values = dict(drawn)
        _check_known(values, model, {k: [v] for k, v in values.items() if _is_part(v)})
        model.set_params(**values)
        return values
    values = {}
    for dimension in space:
        if dimension.applies(model):
            value = _suggest(trial, dimension)
            model.set_params(**{dimension.parameter: value})
            values[dimension.parameter] = value
    return values


def with_parts(estimator: BaseEstimator) -> BaseEstimator:
    """A copy with its default algorithm and backbone in place of None."""
    model = clone(estimator)
    defaults = {"algorithm": getattr(model, "_default_algorithm", None), "backbone": MLP}
    for name, default in defaults.items():
        if name in model.get_params(deep=False) and getattr(model, name) is None and default:
            model.set_params(**{name: default()})
    return model


def _declared(model: BaseEstimator, prefix: str = "") -> Iterator[Dimension]:
    """Every declared range of a model and of its parts."""
    for name, declared in declared_ranges(type(model)).items():
        when = {prefix + other: value for other, value in declared.when.items()}
        yield Dimension(prefix + name, prefix + name, declared, when)
    for name, value in model.get_params(deep=False).items():
        if _is_part(value):
            yield from _declared(value, f"{prefix}{name}__")


def _of_parts(
    parameter: str, parts: Sequence[BaseEstimator], wanted: Mapping[str, Any]
) -> Iterator[Dimension]:
    """Dimensions of the parameters of every part in a list, searched only if the part is chosen."""
    prefix = f"{parameter}__"
    for label, part in zip(Choice(tuple(parts)).labels, parts, strict=True):
        declared = {d.parameter: d for d in _declared(part, prefix)}
        of_part = {prefix + name for name in part.get_params()}
        searched = declared | {
            name: _dimension(name, value, declared.get(name))
            for name, value in wanted.items()
            if name in of_part
        }
        for dimension in searched.values():
            yield replace(
                dimension,
                name=f"{label}__{dimension.parameter[len(prefix) :]}",
                when={parameter: label, **dimension.when},
            )


def _dimension(name: str, value: Any, declared: Dimension | None) -> Dimension:
    """Dimension of one parameter, from the user's range or else the declared one."""
    usual, when = (None, {}) if declared is None else (declared.range, declared.when)
    if isinstance(value, Range | Choice):
        prefix = name.rpartition("__")[0]
        prefix = f"{prefix}__" if prefix else ""
        when = {prefix + other: required for other, required in value.when.items()}
        return Dimension(name, name, value, when)
    if value is None:
        if declared is None:
            raise DataError(
                f"'{name}' has no declared range.",
                Remedy("give-range", f"Pass one, such as {{'{name}': (1, 10)}}.", {"name": name}),
            )
        return declared
    try:
        if isinstance(value, list):
            return Dimension(name, name, Choice(tuple(value)), when)
        return Dimension(name, name, _range(value, usual), when)
    except DataError as error:
        raise DataError(f"'{name}' in the space:", *error.args) from error


def _range(value: Any, usual: Range | Choice | None) -> Range:
    """Range from ``(low, high)`` or ``(low, high, "log")``, with the declared kind and scale."""
    usual = usual if isinstance(usual, Range) else None
    parts = value if isinstance(value, tuple) else ()
    is_number = [isinstance(end, Real) and not isinstance(end, bool) for end in parts[:2]]
    if is_number != [True, True] or parts[2:] not in ((), ("log",)):
        raise DataError(
            f"{value!r} is not a range.",
            Remedy("write-range", "Write (low, high), (low, high, 'log') or a list of choices."),
        )
    low, high, *scale = parts
    if usual is not None:
        kind = float if usual.kind == "float" else int
        if (kind(low), kind(high)) != (low, high):
            raise DataError(f"write whole numbers, not {value!r}.")
        low, high = kind(low), kind(high)
    return Range(low, high, log=bool(scale) or (usual is not None and usual.log))


def _suggest(trial: Trial, dimension: Dimension) -> Any:
    """The trial's value on one dimension."""
    name, searched = dimension.name, dimension.range
    if isinstance(searched, Choice):
        label = trial.suggest_categorical(name, searched.labels)
        value = searched.values[searched.labels.index(str(label))]
        return clone(value) if _is_part(value) else value
    if searched.kind == "int":
        return trial.suggest_int(name, int(searched.low), int(searched.high), log=searched.log)
    return trial.suggest_float(name, searched.low, searched.high, log=searched.log)


def _check_known(
    names: Iterable[str], model: BaseEstimator, parts: Mapping[str, Sequence[Any]]
) -> set[str]:
    """All parameters of a model and of its possible parts; raises an error for other names."""
    known = set(model.get_params()) | {
        f"{name}__{nested}"
        for name, values in parts.items()
        for part in values
        for nested in part.get_params()
    }
    for name in names:
        if name not in known:
            raise DataError(
                f"unknown parameter '{name}' in the space. {did_you_mean(str(name), sorted(known))}"
            )
    return known


def _is_part(value: Any) -> bool:
    return hasattr(value, "get_params") and not isinstance(value, type)


def _label(value: Any) -> str:
    """Text of a value, to compare in conditions; for a part, the name of its class."""
    return type(value).__name__ if _is_part(value) else str(value)


def space_of_words(searched: Sequence[str]) -> dict[str, Any] | None:
    """Parse ``NAME``, ``NAME=LOW:HIGH``, ``NAME=LOW:HIGH:log`` and ``NAME=A,B`` into a space.

    Raises
    ------
    DataError
        Nothing follows an equals sign.

    Examples
    --------
    >>> space_of_words(["width=16:64:log", "backbone__hidden=32,64x64", "n_deep"])
    {'width': (16, 64, 'log'), 'backbone__hidden': [32, (64, 64)], 'n_deep': None}
    """
    space: dict[str, Any] = {}
    for one in searched:
        name, sign, text = one.partition("=")
        ends = text.split(":")
        if not sign:
            space[name] = None
        elif not text:
            raise DataError(f"'{one}' has no range: write {name}=LOW:HIGH or {name}=A,B.")
        elif len(ends) == 1:
            space[name] = [_value(word) for word in text.split(",")]
        else:
            space[name] = (*map(_value, ends[:2]), *ends[2:])
    return space or None


def _value(text: str) -> Any:
    """Parse a number, True, False or None, otherwise text; ``64x64`` is (64, 64)."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    widths = text.split("x")
    if len(widths) > 1 and all(width.isdigit() for width in widths if width):
        return tuple(int(width) for width in widths if width)
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
