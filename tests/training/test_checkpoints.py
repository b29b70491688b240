"""A training that was ended goes on where it was, and ends bit for bit like one that was not."""

from __future__ import annotations

import functools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from ehrmeta import MAML, MLP, MetaRegressor, TorchModule, make_sinusoid
from ehrmeta.algorithms import Spec
from ehrmeta.errors import BundleError, DataWarning
from ehrmeta.nn import Normal, TaskRows
from ehrmeta.training import TrainingPlan, train
from ehrmeta.training.checkpoints import Checkpoints, fingerprint, on_termination
from ehrmeta.training.state import TrainingState

PLAN = TrainingPlan(max_steps=40, check_every=10, batch_size=8, progress_bar=False)
N_TASKS, N_ROWS = 30, 6


def _rows(seed):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.arange(N_TASKS).repeat_interleave(N_ROWS)
    n = len(codes)
    return TaskRows.from_codes(
        codes,
        N_TASKS,
        timed=False,
        x=torch.randn(n, 1, generator=generator),
        measured=torch.empty(n, 0),
        time=torch.zeros(n).double(),
        y=torch.randn(N_TASKS, generator=generator)[codes],
        origin=torch.arange(n),
    )


def fit(folder=None, plan=PLAN, *, seed=3, resume=True, callbacks=()):
    """Train a small MAML; parameters and history."""
    algorithm, spec = MAML(inner_steps=1), Spec(MLP((4,), "tanh").network(1, 1), Normal(), 1)
    params = algorithm.init(spec, torch.Generator().manual_seed(0))
    return train(
        algorithm,
        spec,
        params,
        _rows(0),
        _rows(1),
        plan,
        seed=seed,
        callbacks=callbacks,
        checkpoint_dir=folder,
        resume=resume,
    )


def _assert_equal(left, right):
    for name, value in left[0].items():
        assert torch.equal(value, right[0][name]), name
    losses = [[record["held_out_loss"] for record in history] for _, history in (left, right)]
    assert losses[0] == losses[1]


class _KilledError(Exception):
    pass


def _interrupted(folder):
    """End a run at its third check, before the checkpoint is written."""

    def end(record):
        if record["step"] == 30:
            raise _KilledError

    with pytest.raises(_KilledError):
        fit(folder, callbacks=[end])


def test_a_resumed_training_ends_bit_for_bit_like_an_uninterrupted_one(tmp_path):
    _interrupted(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-00000010.checkpoint",
        "step-00000020.checkpoint",
    ]
    _assert_equal(fit(tmp_path), fit())


def test_a_finished_training_is_not_repeated(tmp_path):
    first, records = fit(tmp_path), []
    _assert_equal(fit(tmp_path, callbacks=[records.append]), first)
    assert records == []


def test_the_newest_two_and_the_best_are_kept(tmp_path):
    state = TrainingState.at_start({"beta": torch.ones(2)}, PLAN)
    checkpoints = Checkpoints(tmp_path, "this training", resume=True)
    for step in range(10, 60, 10):
        state.step, state.best_step = step, min(step, 20)
        checkpoints.save(state)
    steps = {int(path.stem.removeprefix("step-")) for path in tmp_path.iterdir()}
    assert steps == {20, 40, 50}


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    _interrupted(tmp_path)
    newest = max(tmp_path.iterdir())
    content = bytearray(newest.read_bytes())
    content[-10] ^= 1
    newest.write_bytes(content)
    with pytest.warns(DataWarning, match=r"skipped.*altered"):
        resumed = fit(tmp_path)
    _assert_equal(resumed, fit())


def test_without_a_sound_checkpoint_nothing_is_started_silently(tmp_path):
    (tmp_path / "step-00000010.checkpoint").write_bytes(b"no checkpoint")
    with pytest.warns(DataWarning), pytest.raises(BundleError, match="resume=False"):
        fit(tmp_path)
    _assert_equal(fit(tmp_path, resume=False), fit())


@pytest.mark.parametrize("other", [{"seed": 2}, {"plan": replace(PLAN, learning_rate=1e-3)}])
def test_a_checkpoint_of_another_training_is_refused(tmp_path, other):
    _interrupted(tmp_path)
    with pytest.raises(BundleError, match="belongs to another training"):
        fit(tmp_path, **other)


def _scaled(n_inputs, n_outputs, scale=1.0):
    module = torch.nn.Linear(n_inputs, n_outputs)
    module.scale = scale
    return module


OTHERS = {
    "activation": {"backbone": MLP((4,), "relu")},
    "likelihood": {"likelihood": "student_t"},
    "inner rate": {"algorithm": MAML(inner_steps=1, inner_lr=0.02)},
    "batches": {"batch_size": 5},
    "share": {"validation_fraction": 0.3},
    "module": {"backbone": TorchModule(_scaled)},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_a_checkpoint_of_other_settings_is_refused(tmp_path, other):
    X, y, groups = make_sinusoid(n_tasks=20, n_points=6, random_state=0)
    first = {"algorithm": MAML(inner_steps=1), "backbone": MLP((4,), "tanh"), "max_steps": 2}
    first |= {"batch_size": 4, "random_state": 1, "verbose": False}
    MetaRegressor(**first).fit(X, y, groups=groups, checkpoint_dir=tmp_path)
    with pytest.raises(BundleError, match="belongs to another training"):
        MetaRegressor(**first | other).fit(X, y, groups=groups, checkpoint_dir=tmp_path)


def test_a_fingerprint_is_the_same_in_every_process_and_sees_all_attributes():
    one = fingerprint(TorchModule(_scaled).network(2, 1), PLAN, _rows(0))
    assert one == fingerprint(TorchModule(_scaled).network(2, 1), PLAN, _rows(0))
    scaled = TorchModule(functools.partial(_scaled, scale=2.0)).network(2, 1)
    assert fingerprint(scaled.module) != fingerprint(TorchModule(_scaled).network(2, 1).module)
    assert one != fingerprint(TorchModule(_scaled).network(2, 1), PLAN, _rows(1))


def test_the_estimator_resumes_and_names_a_folder_that_cannot_be_made(tmp_path):
    X, y, groups = make_sinusoid(n_tasks=20, n_points=6, random_state=0)
    settings = {"max_steps": 3, "batch_size": 4, "random_state": 1, "verbose": False}
    models = [
        MetaRegressor(MAML(), MLP((4,)), **settings).fit(
            X, y, groups=groups, checkpoint_dir=tmp_path / "runs"
        )
        for _ in range(2)
    ]
    assert list((tmp_path / "runs").iterdir())
    assert (models[0].predict(X) == models[1].predict(X)).all()
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="checkpoint_dir"):
        models[0].fit(X, y, groups=groups, checkpoint_dir=tmp_path / "file" / "folder")


def test_sigterm_writes_a_checkpoint_and_exits(tmp_path):
    process = _start(tmp_path, steps=1_000_000)
    _wait_for_checkpoint(tmp_path, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert int(_newest(tmp_path).removeprefix("step-").removesuffix(".checkpoint")) > 0
    assert not list(tmp_path.glob(".*"))


def test_a_signal_sets_a_flag_and_the_handler_is_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with on_termination(active=True) as is_terminated:
        assert not is_terminated()
        signal.raise_signal(signal.SIGTERM)
        assert is_terminated()
    assert signal.getsignal(signal.SIGTERM) is before
    with on_termination(active=False) as is_terminated:
        assert signal.getsignal(signal.SIGTERM) is before
        assert not is_terminated()


def test_other_threads_leave_the_handler_alone():
    seen = []

    def run():
        with on_termination(active=True) as is_terminated:
            seen.append((signal.getsignal(signal.SIGTERM), is_terminated()))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(signal.getsignal(signal.SIGTERM), False)]


FINGERPRINTS = {
    "arrays": (np.arange(3), np.arange(3) + 1),
    "types of arrays": (np.zeros(2), np.zeros(2, np.float32)),
    "shapes": (torch.zeros(2, 1), torch.zeros(1, 2)),
    "types of tensors": (torch.zeros(2), torch.zeros(2).int()),
    "names": ({"a": 1}, {"b": 1}),
    "order of lists": ([1, 2], [2, 1]),
    "lists and tuples": ([1], (1,)),
    "nesting": ([[1], 2], [[1, 2]]),
    "numbers and text": (1, "1"),
    "classes": (MAML, MLP),
    "code": (lambda x: x + 1, lambda x: x - 1),
    "arguments": (functools.partial(max, 1), functools.partial(max, 2)),
    "named arguments": (functools.partial(max, a=1), functools.partial(max, a=2)),
    "attributes": (MAML(inner_lr=0.1), MAML(inner_lr=0.2)),
    "settings of a module": (torch.nn.Softplus(1.0), torch.nn.Softplus(2.0)),
    "weights": (torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.zeros(1))),
    "fields": (PLAN, replace(PLAN, max_steps=41)),
}


@pytest.mark.parametrize("pair", FINGERPRINTS.values(), ids=FINGERPRINTS)
def test_fingerprints_tell_values_apart(pair):
    one, other = pair
    assert fingerprint(one) == fingerprint(one) != fingerprint(other)


def test_fingerprints_do_not_see_the_order_of_names_nor_the_progress_bar():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint(PLAN) == fingerprint(replace(PLAN, progress_bar=True))


@pytest.mark.slow
def test_sigkills_change_nothing(tmp_path):
    chance, plan = random.Random(0), replace(PLAN, max_steps=400)
    for _ in range(3):
        process = _start(tmp_path, plan.max_steps)
        _wait_for_checkpoint(tmp_path, process, than=_newest(tmp_path))
        time.sleep(chance.uniform(0.0, 0.3))
        process.kill()
        process.wait()
    _assert_equal(fit(tmp_path, plan), fit(None, plan))


def _start(folder, steps):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, __file__, str(folder), str(steps)], env=environment)


def _newest(folder):
    return max((path.name for path in folder.glob("step-*")), default="")


def _wait_for_checkpoint(folder, process, *, than=""):
    deadline = time.monotonic() + 90
    while _newest(folder) <= than and process.poll() is None:
        assert time.monotonic() < deadline, "no checkpoint came"
        time.sleep(0.02)


if __name__ == "__main__":
    torch.set_num_threads(1)
    fit(sys.argv[1], replace(PLAN, max_steps=int(sys.argv[2])))


def test_a_tensor_that_repeats_one_value_has_a_fingerprint():
    one = torch.ones(3)
    assert fingerprint(one[:1].expand(1)) == fingerprint(torch.ones(1))
    assert fingerprint(one[0].expand(4)) == fingerprint(torch.ones(4))
    assert fingerprint(torch.ones(1).as_strided((1,), (0,))) == fingerprint(torch.ones(1))
