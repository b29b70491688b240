import numpy as np

from ehrmeta.data import make_sinusoid


def test_predicting_zero_has_the_published_error() -> None:
    _, y, _ = make_sinusoid(20_000, 5, random_state=0)
    assert abs(np.mean(y**2) - 4.25) < 0.06


def test_every_task_is_one_sine_wave() -> None:
    X, y, groups = make_sinusoid(50, 12, random_state=1)
    for task in range(50):
        rows = groups == task
        waves = np.column_stack([np.sin(X[rows, 0]), np.cos(X[rows, 0])])
        a, b = np.linalg.lstsq(waves, y[rows])[0]
        np.testing.assert_allclose(waves @ [a, b], y[rows], atol=1e-10)
        assert 0.1 <= np.hypot(a, b) <= 5
        assert b <= 1e-12  # the phase lies between 0 and pi
    assert np.abs(X).max() <= 5


def test_noise_is_added_to_the_same_tasks() -> None:
    clean = make_sinusoid(300, 20, random_state=2)
    noisy = make_sinusoid(300, 20, noise=0.5, random_state=2)
    np.testing.assert_array_equal(clean[0], noisy[0])
    assert abs(np.std(noisy[1] - clean[1]) - 0.5) < 0.02
