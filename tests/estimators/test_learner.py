import copy
from dataclasses import fields, replace

import pytest
import torch

from ehrmeta import MAML, MLP, DeepMixedEffects, MatchingNet, MetaSGD
from ehrmeta.errors import DataError, MemoryWarning
from ehrmeta.estimators import learner as module
from ehrmeta.estimators.learner import AdaptedChunk, Learner
from ehrmeta.nn import Normal
from ehrmeta.nn.batch import TaskRows, visible_width

ALGORITHMS = [MAML(inner_steps=2), MetaSGD(inner_steps=2), DeepMixedEffects()]
N_TASKS = 40


def make_rows(sizes, *, n_tasks=N_TASKS, seed=0, start=0.0):
    """Rows of tasks of these sizes, with time and a measured feature that is often missing."""
    random = torch.Generator().manual_seed(seed)
    codes = torch.repeat_interleave(torch.arange(n_tasks), sizes)
    n = len(codes)
    measured = torch.randn(n, 1, generator=random)
    measured[::3] = torch.nan
    return TaskRows.from_codes(
        codes,
        n_tasks,
        timed=True,
        x=torch.randn(n, 3, generator=random),
        measured=measured,
        time=start + torch.rand(n, generator=random, dtype=torch.float64),
        y=torch.randn(n, generator=random),
        origin=torch.arange(n),
    )


def random_sizes(low, high, seed):
    random = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, (N_TASKS,), generator=random)


SUPPORT = make_rows(random_sizes(0, 12, 1), seed=1)
QUERY = make_rows(random_sizes(0, 7, 2), seed=2, start=2.0)


def make_learner(algorithm, **changes):
    width = visible_width(SUPPORT)
    spec = algorithm.spec(MLP((8, 8)), Normal(), width)
    params = algorithm.init(spec, torch.Generator().manual_seed(0))
    return replace(Learner(algorithm, spec, params, 1.0, torch.device("cpu")), **changes)


def predict(learner, support=SUPPORT, query=QUERY):
    return learner.predict(support, learner.adapt(support), query)


def assert_close(found, expected, tolerance=1e-5):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance)


def one_by_one(learner):
    """The predictions of every task that has queries, adapted alone; the rows are by task."""
    found = []
    for task in torch.arange(N_TASKS):
        query = QUERY.select(task[None])
        if query.n_rows:
            found.append(predict(learner, SUPPORT.select(task[None]), query))
    return {name: torch.cat([each[name] for each in found]) for name in found[0]}


@pytest.fixture(params=ALGORITHMS, ids=lambda algorithm: type(algorithm).__name__)
def learner(request):
    return make_learner(request.param)


def test_one_task_at_a_time_equals_all_at_once(learner):
    assert_close(one_by_one(learner), predict(learner))


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: type(algorithm).__name__)
def test_float64_agrees_across_chunks_and_tasks_to_its_own_rounding(algorithm):
    exact = make_learner(algorithm, dtype=torch.float64)
    params = {name: value.double() for name, value in exact.params.items()}
    exact = replace(exact, params=params)
    together = predict(exact)
    assert together["loc"].dtype == torch.float64
    assert_close(predict(replace(exact, chunk_size=3)), together, 1e-12)
    assert_close(one_by_one(exact), together, 1e-12)


@pytest.mark.parametrize("chunk_size", [1, 3, 1000])
def test_chunk_size_changes_results_by_rounding_only(learner, chunk_size):
    assert_close(predict(replace(learner, chunk_size=chunk_size)), predict(learner))


def test_threads_change_nothing_but_the_rounding(learner, monkeypatch):
    monkeypatch.setattr(module, "FEW_POINTS", 0)
    alone = predict(replace(learner, chunk_size=4))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert_close(predict(replace(learner, chunk_size=4)), alone)
    finally:
        torch.set_num_threads(before)


def test_long_queries_of_one_task_are_predicted_in_runs(learner, monkeypatch):
    support = SUPPORT.select(torch.tensor([3]))
    query = make_rows(torch.tensor([50]), n_tasks=1, seed=3, start=2.0)
    whole = predict(learner, support, query)
    monkeypatch.setattr(module, "_POINTS_OF_ONE_TASK", 8)
    assert_close(predict(learner, support, query), whole)


def test_a_full_device_halves_the_chunk_and_goes_on(learner, monkeypatch):
    expected = predict(learner)
    batched = module.vmap
    tried = []

    def of_a_small_device(function):
        def at_most_five(*batches):
            tried.append(len(batches[-1].mask))
            if tried[-1] > 5:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return batched(function)(*batches)

        return at_most_five

    monkeypatch.setattr(module, "vmap", of_a_small_device)
    full = replace(learner)
    with pytest.warns(MemoryWarning, match="tasks at once") as said:
        found = predict(full)
        assert_close(found, expected)
        assert_close(predict(full), expected)
    assert len(said) == 1
    assert [n for n in tried if n > 5] == [40, 20, 10]


def test_copies_start_without_what_was_computed_at_use_and_predict_the_same(learner):
    support, query = SUPPORT.select(torch.tensor([3])), QUERY.select(torch.tensor([3]))
    expected = predict(learner, support, query)
    twin = copy.deepcopy(learner)
    assert vars(twin).keys() == {field.name for field in fields(Learner)}
    for name, value in predict(twin, support, query).items():
        assert torch.equal(value, expected[name])


def test_learners_cannot_be_changed():
    for kind in (Learner, AdaptedChunk, module._Run):
        assert kind.__dataclass_params__.frozen


def test_chunks_are_of_similar_size_and_bounded_by_number_and_points():
    sizes = torch.tensor([0, 1, 2, 3, 60, 200, 300, 5000])
    order = torch.argsort(sizes, stable=True)
    chunks = [part.tolist() for part in module._by_size(order, sizes, 4)]
    assert sum(chunks, []) == order.tolist()
    assert [len(part) for part in chunks] == [4, 1, 1, 1, 1]
    for part in chunks:  # 4 tasks of 64 points, or one task
        assert len(part) == 1 or len(part) * sizes[part].max() <= 4 * 64
    at_limit = torch.full((4,), 64)
    assert [len(part) for part in module._by_size(torch.arange(4), at_limit, 4)] == [4]
    assert [len(part) for part in module._by_size(torch.arange(4), at_limit + 1, 4)] == [2, 2]


def test_queries_of_many_tasks_are_split_into_runs_of_64_points():
    chunk = AdaptedChunk(torch.arange(3), torch.zeros(3, 0).long(), torch.zeros(3, 0).bool(), {})
    sizes = torch.tensor([130, 0, 64])
    query = make_rows(sizes, n_tasks=3)
    runs = list(module._runs(chunk, query, 2))
    lengths = [run.mask.sum(1).tolist() for run in runs]
    assert lengths == [[2, 64], [64, 64]]
    assert sorted(row for run in runs for row in run.index[run.mask].tolist()) == list(range(194))
    assert [run.at.tolist() for run in runs] == [[0, 0], [0, 2]]
    one = AdaptedChunk(torch.tensor([1]), torch.zeros(1, 0).long(), torch.zeros(1, 0).bool(), {})
    (run,) = module._runs(one, make_rows(torch.tensor([5, 130]), n_tasks=2), 2)
    assert run.index[run.mask].tolist() == list(range(5, 135))
    assert list(module._runs(one, make_rows(torch.tensor([5, 0]), n_tasks=2), 2)) == []


def test_settings_of_an_estimator_set_device_and_precision():
    learner = make_learner(ALGORITHMS[0])
    settings = {"device": "cpu", "precision": "float64", "chunk_size": 7}
    moved = Learner.on_device(learner.algorithm, learner.spec, learner.params, 2.0, settings)
    assert (moved.dtype, moved.chunk_size, moved.time_unit) == (torch.float64, 7, 2.0)
    assert {value.dtype for value in moved.params.values()} == {torch.float64}
    assert module.pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for wrong in ("gpu", "cpu:0", "cuda:", None):
        with pytest.raises(DataError, match="device must be 'auto', 'cpu' or 'cuda'"):
            module.pick_device(wrong)


def test_a_model_without_a_gpu_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DataError, match="finds no GPU"):
        module.pick_device("cuda")


def test_the_population_is_an_empty_support():
    learner = make_learner(ALGORITHMS[2])
    alone = learner.population(QUERY)
    nobody = SUPPORT.select(torch.arange(0))
    nobody = replace(nobody, starts=torch.zeros(N_TASKS + 1, dtype=torch.int64))
    assert_close(predict(learner, nobody), alone)


def test_attention_weights_name_their_rows_and_sum_to_one():
    learner = make_learner(MatchingNet())
    chunks = learner.adapt(SUPPORT)
    row, origin, weight = learner.support_weights(SUPPORT, chunks, QUERY)
    total = torch.zeros(QUERY.n_rows).index_add(0, row, weight)
    torch.testing.assert_close(total, torch.ones(QUERY.n_rows))
    codes = QUERY.codes[torch.argsort(QUERY.origin)]
    owner = SUPPORT.codes[torch.argsort(SUPPORT.origin)]
    support = origin >= 0
    assert torch.equal(owner[origin[support]], codes[row[support]])
    assert set(origin[~support].tolist()) == {-1}
    assert torch.bincount(row[~support], minlength=QUERY.n_rows).tolist() == [1] * QUERY.n_rows
    counts = torch.bincount(row, minlength=QUERY.n_rows)
    assert torch.equal(counts, SUPPORT.sizes[codes] + 1)
    none = QUERY.take(torch.arange(0))
    assert [len(part) for part in learner.support_weights(SUPPORT, chunks, none)] == [0, 0, 0]
    assert len(learner.own_weight(SUPPORT, chunks, none)) == 0


def test_own_weights_grow_with_the_support():
    learner = make_learner(ALGORITHMS[2])
    weight = learner.own_weight(SUPPORT, learner.adapt(SUPPORT), QUERY)
    assert ((weight >= 0) & (weight < 1)).all()
    empty = SUPPORT.sizes[QUERY.codes] == 0
    assert (weight[empty].abs() < 1e-6).all()
    assert weight[~empty].min() > 0


def test_long_records_are_predicted_as_each_alone():
    """Their states are not copied for every 64 queries."""
    learner = make_learner(ALGORITHMS[2])
    support = make_rows(torch.tensor([70, 65, 66]), n_tasks=3, seed=1)
    query = make_rows(torch.tensor([100, 0, 3]), n_tasks=3, seed=2, start=2.0)
    alone = [
        predict(learner, support.select(one), query.select(one))
        for one in torch.eye(3).nonzero()[:, 1:]
    ]
    found = predict(learner, support, query)
    expected = {name: torch.cat([each[name] for each in alone if name in each]) for name in found}
    assert_close(found, expected)
