import optuna
import pytest
from optuna.trial import FixedTrial

from ehrmeta import ANIL, MAML, MLP, FineTune, MetaRegressor, MetaSGD, NeuralProcess
from ehrmeta.algorithms import DeepMixedEffects
from ehrmeta.errors import DataError
from ehrmeta.ranges import Choice, Range, declared_ranges
from ehrmeta.tuning.space import read_space, suggested, with_parts

MODEL = MetaRegressor(MAML())


def names(space: object) -> list[str]:
    return [dimension.name for dimension in read_space(MODEL, space)]


@pytest.mark.parametrize(
    "part", [MAML(), MetaSGD(), ANIL(), FineTune(), NeuralProcess(), DeepMixedEffects(), MLP()]
)
def test_a_default_lies_in_its_declared_range(part: object) -> None:
    by_name = declared_ranges(type(part))
    assert by_name
    for name, declared in by_name.items():
        default = getattr(part, name)
        if isinstance(declared, Range):
            assert declared.low <= default <= declared.high
        else:
            assert default in declared.values


def test_a_range_is_declared_once_for_all_estimators() -> None:
    assert set(declared_ranges(MetaRegressor)) == {"learning_rate", "weight_decay"}


def test_by_default_everything_declared_is_searched() -> None:
    assert set(names(None)) == {
        "algorithm__inner_lr",
        "algorithm__inner_steps",
        "algorithm__pseudo_count",
        "backbone__hidden",
        "backbone__activation",
        "learning_rate",
        "weight_decay",
    }


def test_default_parts_are_searched_too() -> None:
    by_name = {dimension.name for dimension in read_space(MetaRegressor())}
    assert {"algorithm__n_deep", "backbone__hidden"} <= by_name


def test_a_dict_says_what_is_searched_and_where() -> None:
    space = read_space(
        MODEL,
        {
            "algorithm__inner_lr": (1, 2),
            "algorithm__inner_steps": [1, 3],
            "max_steps": (10, 100, "log"),
            "learning_rate": None,
        },
    )
    by_name = {dimension.name: dimension.range for dimension in space}
    assert by_name["algorithm__inner_lr"] == Range(1.0, 2.0, log=True)  # kind and scale as declared
    assert by_name["algorithm__inner_steps"] == Choice((1, 3))
    assert by_name["max_steps"] == Range(10, 100, log=True)
    assert by_name["max_steps"].kind == "int"
    assert by_name["learning_rate"] == declared_ranges(MetaRegressor)["learning_rate"]


def test_a_chosen_part_brings_its_own_parameters_on_condition() -> None:
    space = read_space(MODEL, {"algorithm": [MAML(), MetaSGD()], "algorithm__inner_steps": [1, 2]})
    assert space[0].name == "algorithm"
    model = with_parts(MODEL)
    drawn = {
        "algorithm": "MetaSGD",
        "MetaSGD__inner_lr": 0.2,
        "MetaSGD__inner_steps": "2",
        "MetaSGD__pseudo_count": 1.0,
    }
    trial = FixedTrial(drawn)
    suggested(space, trial, model)
    assert set(trial.params) == set(drawn)  # nothing of MAML
    assert isinstance(model.algorithm, MetaSGD)
    assert (model.algorithm.inner_lr, model.algorithm.inner_steps) == (0.2, 2)


def test_a_condition_on_a_sibling_is_kept() -> None:
    model = MetaRegressor(FineTune(learn_inner_lr=False))
    space = read_space(model)
    assert "algorithm__max_inner_lr" in {dimension.name for dimension in space}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    by_name = suggested(space, study.ask(), with_parts(model))
    assert "algorithm__max_inner_lr" not in by_name


def test_a_function_of_the_trial_is_a_space() -> None:
    model = with_parts(MODEL)
    trial = FixedTrial({"rate": 0.2})
    by_name = suggested(
        lambda trial: {"algorithm__inner_lr": trial.suggest_float("rate", 0, 1)}, trial, model
    )
    assert by_name == {"algorithm__inner_lr": 0.2}
    assert model.algorithm.inner_lr == 0.2


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"algorithm__iner_lr": (0, 1)}, "'algorithm__iner_lr'.*Did you mean 'algorithm"),
        (["learningrate"], "Did you mean 'learning_rate'"),
        ({"learning_rate": (0.1, 0.1)}, "'learning_rate'.*is empty: low must be below high"),
        ({"learning_rate": (0.2, 0.1)}, "empty"),
        ({"learning_rate": (0.0, 0.1, "log")}, "log scale: start above 0"),
        ({"learning_rate": []}, "the choice is empty"),
        ({"learning_rate": [0.1, 0.1]}, "repeats a value"),
        ({"learning_rate": 0.1}, r"Write \(low, high\)"),
        ({"learning_rate": ("a", "b")}, "is not a range"),
        ({"max_steps": None}, "'max_steps' has no declared range. Pass one"),
        ({"learning_rate": Range(0.1, 0.2, when={"max_step": 1})}, "Did you mean 'max_steps'"),
        ({}, "the space is empty"),
        ([], "the space is empty"),
    ],
)
def test_what_cannot_be_searched_is_refused(space: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_space(MODEL, space)  # type: ignore[arg-type]


def test_a_function_that_sets_what_is_not_there_is_refused() -> None:
    with pytest.raises(DataError, match="Did you mean 'learning_rate'"):
        suggested(lambda trial: {"learn_rate": 0.1}, FixedTrial({}), with_parts(MODEL))
