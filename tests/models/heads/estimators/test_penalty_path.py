import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from featurepipe.models.heads.estimators.penalty_path import PenaltyPath
from featurepipe.models.heads.estimators.regressions import Regressions, drive


def make_regressions(n_outputs, n_problems=3, n=240, n_axes=20, dtype=np.float64, seed=0):
    """Classes that overlap; each regression is fitted on other rows."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, max(n_outputs, 2), n)
    means = rng.normal(0, 1, (max(n_outputs, 2), n_axes))
    axes = (means[codes] + rng.normal(0, 1.5, (n, n_axes))) * np.geomspace(1, 0.01, n_axes)
    outputs = np.arange(n_outputs) if n_outputs > 1 else np.ones(1)
    truth = (codes == outputs[:, None])[None]
    fitted = rng.random((n_problems, n)) < 0.8
    axes = np.column_stack([axes, np.ones(n)])
    return Regressions(axes.astype(dtype), truth.astype(dtype), fitted), codes


def of_scikit_learn(regressions, codes, problem, C):
    rows = regressions.fitted[problem]
    model = LogisticRegression(C=C, tol=1e-10, max_iter=100_000)
    model.fit(regressions.axes[rows, :-1].astype(float), codes[rows])
    return np.column_stack(
        [model.coef_, model.intercept_ - model.intercept_.mean() * (len(model.coef_) > 1)]
    )


def centred(weights):
    """A softmax ignores a common term of the intercepts."""
    if len(weights) > 1:
        weights = weights.copy()
        weights[:, -1] -= weights[:, -1].mean()
    return weights


@pytest.mark.parametrize("n_outputs", [1, 4])
def test_every_solution_on_the_way_is_that_of_scikit_learn(n_outputs):
    regressions, codes = make_regressions(n_outputs)
    path = PenaltyPath(regressions, np.zeros(regressions.shape))
    for C in (1e-3, 1e-2, 1.0, 1e4):
        drive(path.move_to(C, 1e-13, 1000), regressions.evaluate)
        for problem in range(3):
            expected = of_scikit_learn(regressions, codes, problem, C)
            found = centred(path.weights[problem])
            np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("n_outputs", [1, 4])
def test_the_gradient_is_that_of_the_mean_loss(n_outputs):
    regressions, _ = make_regressions(n_outputs)
    rng = np.random.default_rng(1)
    weights, change = rng.normal(size=(2, *regressions.shape))

    def losses(step):
        at = regressions.evaluate(weights + step * change)
        return (regressions.shares * at.losses).sum(axis=1)

    slope = (losses(1e-5) - losses(-1e-5)) / 2e-5
    gradient = regressions.evaluate(weights).gradient
    np.testing.assert_allclose((gradient * change).sum(axis=(1, 2)), slope, rtol=1e-6)


def test_regressions_side_by_side_are_what_they_are_alone():
    together, _ = make_regressions(4)
    path = PenaltyPath(together, np.zeros(together.shape))
    for C in (1e-3, 1e-2, 0.1):
        drive(path.move_to(C, 1e-12, 1000), together.evaluate)
    for problem in range(3):
        alone = Regressions(together.axes, together.truth, together.fitted[[problem]])
        other = PenaltyPath(alone, np.zeros(alone.shape))
        drive(other.move_to(0.1, 1e-12, 1000), alone.evaluate)
        np.testing.assert_allclose(path.weights[problem], other.weights[0], atol=1e-4)


def test_a_fine_path_takes_few_evaluations_for_each_solution():
    regressions, codes = make_regressions(4, dtype=np.float32)
    path = PenaltyPath(regressions, np.zeros(regressions.shape, np.float32))
    Cs = np.logspace(-6, 2, 33).tolist()
    for C in Cs:
        drive(path.move_to(C, 1e-7, 1000), regressions.evaluate)
    assert path.n_evaluations < 6 * len(Cs)
    expected = of_scikit_learn(regressions, codes, 0, Cs[-1])
    np.testing.assert_allclose(
        centred(path.weights[0]), expected, atol=0.02 * np.abs(expected).max()
    )


def test_where_the_line_through_two_solutions_leads_up_it_is_not_followed():
    # On rows that C = 1 already separates, the line leads far beyond the solution for the next C.
    regressions, codes = make_regressions(1, n=60, n_axes=40)
    path = PenaltyPath(regressions, np.zeros(regressions.shape))
    for C in (1e-4, 1.0, 1.01, 1e8):
        drive(path.move_to(C, 1e-13, 1000), regressions.evaluate)
    drive(path.move_to(1e8, 1e-13, 1000), regressions.evaluate)
    probabilities = regressions.evaluate(path.weights).probabilities[:, 0]
    for problem in range(3):
        rows = regressions.fitted[problem]
        np.testing.assert_allclose(probabilities[problem, rows], codes[rows], atol=1e-4)
