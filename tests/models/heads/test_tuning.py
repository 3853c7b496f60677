from itertools import product

import numpy as np
import pytest
from sklearn.metrics import log_loss

from featurepipe.manifest import Labels
from featurepipe.models.answers.calibration import fit_calibrator
from featurepipe.models.heads.fitting import fit_heads
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.heads.pipelines import build_head, fit_head
from featurepipe.models.heads.registry import GRIDS
from featurepipe.models.heads.tuning import fit_tuned_head
from featurepipe.runs.heads_file import heads_content, load_heads
from featurepipe.splits import inner_folds

ALPHAS = {"alpha_by_rows": (1.0, 0.1, 10.0), "variance_threshold": ("1%",), "scaling": ("as-is",)}


def make_features(n=120, n_features=12, noise=0.5, seed=0):
    """Features that show 3 classes."""
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % 3
    X = rng.normal(size=(n, n_features)) * noise
    X[np.arange(n), codes] += 1
    return X.astype(np.float32), codes


def drown(X):
    """Give the features that show nothing a far larger scale, where they vary little."""
    scales = np.ones(X.shape[1])
    scales[3:] = 30
    return X * scales.astype(np.float32)


def tune(name, X, y, groups=None, calibrated=False, strata=None, **options):
    groups = np.arange(len(X)) if groups is None else groups
    settings = HeadSettings.of(name, calibrate="auto" if calibrated else "none", tune=True)
    strata = y if strata is None else strata
    return fit_tuned_head(settings, X, y, groups, strata=strata, **options)


def losses_by_hand(name, X, y, groups, calibrated):
    """Log-loss of every setting in every fold: of shape (n_settings, n_folds)."""
    losses = []
    for values in product(*GRIDS[name].values()):
        setting = dict(zip(GRIDS[name], values, strict=True))
        losses.append([])
        for training, held_out in inner_folds(y if y.ndim == 1 else y @ [1, 2, 4], groups, 5, 0):
            head = build_head(HeadSettings.of(name), len(X), tuned=setting)
            fit_head(head, X[training], y[training], groups[training])
            probabilities = head.predict_proba(X[held_out]).astype(np.float64)
            if calibrated:
                scores = head.decision_function(X[held_out]).astype(np.float64)
                truth = y[held_out, None] == np.arange(3)
                curve = fit_calibrator("temperature", scores, truth, exclusive=True)
                probabilities = curve.predict_proba(scores)
            if y.ndim == 1:
                probabilities /= probabilities.sum(axis=1, keepdims=True)
                losses[-1].append(log_loss(y[held_out], probabilities))
            else:
                of_labels = zip(y[held_out].T, probabilities.T, strict=True)
                losses[-1].append(np.mean([log_loss(t, p, labels=[0, 1]) for t, p in of_labels]))
    return np.array(losses)


def assert_chosen(tuned, name, losses):
    best = losses.mean(axis=1).argmin()
    gains = losses[0] - losses[best]
    if gains.mean() <= gains.std(ddof=1) / np.sqrt(len(gains)):
        best = 0
    values = list(product(*GRIDS[name].values()))[best]
    assert tuned["chosen"] == dict(zip(GRIDS[name], values, strict=True))
    assert tuned["log_loss"] == pytest.approx(losses[best].mean(), rel=1e-5)
    assert tuned["default_log_loss"] == pytest.approx(losses[0].mean(), rel=1e-5)


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("spoil", [np.copy, drown])
def test_the_choice_is_that_of_a_loop_over_the_same_folds(spoil, calibrated):
    X, codes = make_features(noise=0.7)
    X, groups = spoil(X), np.arange(120) // 2
    head, tuned = tune("knn", X, codes, groups, calibrated)
    assert_chosen(tuned, "knn", losses_by_hand("knn", X, codes, groups, calibrated))
    again = build_head(HeadSettings.of("knn"), 120, tuned=tuned["chosen"])
    expected = fit_head(again, X, codes, groups).predict_proba(X)
    np.testing.assert_array_equal(head.predict_proba(X), expected)


def test_sets_of_labels_are_judged_by_the_mean_over_labels():
    X, codes = make_features()
    sets = np.eye(3, dtype=int)[codes]
    sets[::4, 2] = 1
    groups = np.arange(120)
    _, tuned = tune("knn", drown(X), sets, strata=sets @ [1, 2, 4])
    assert_chosen(tuned, "knn", losses_by_hand("knn", drown(X), sets, groups, False))
    assert tuned["chosen"]["scaling"] == "standardised"


def test_features_of_wildly_different_scales_are_standardised():
    X, codes = make_features(noise=0.4)
    X = drown(X)
    _, tuned = tune("knn", X, codes, calibrated=True)
    assert tuned["chosen"]["scaling"] == "standardised"
    assert tuned["log_loss"] < 0.5 * tuned["default_log_loss"]


def test_a_strong_penalty_wins_where_most_features_are_noise(monkeypatch):
    monkeypatch.setitem(GRIDS, "bagged-sgd", ALPHAS)
    X, codes = make_features(n=60, n_features=100, noise=1)
    X[:, :3] *= 0.7
    head, tuned = tune("bagged-sgd", X, codes, calibrated=True)
    assert tuned["chosen"]["alpha_by_rows"] == 10
    assert head[-1].alpha == pytest.approx(10 / 60)


@pytest.mark.parametrize("name", ["bagged-sgd", "knn"])
def test_the_default_stays_where_nothing_can_be_learnt(name, monkeypatch):
    monkeypatch.setitem(GRIDS, "bagged-sgd", ALPHAS)
    X, codes = make_features()
    coins = np.random.default_rng(3).permutation(codes)
    _, tuned = tune(name, X, coins, calibrated=True)
    assert list(tuned["chosen"].values()) == [values[0] for values in GRIDS[name].values()]
    assert tuned["log_loss"] == tuned["default_log_loss"]


def test_groups_never_part():
    X, codes = make_features(n=60)
    # Each row is there twice: one that is held out has been seen unless they stay together.
    X = np.repeat(X, 2, axis=0)
    coins = np.repeat(np.random.default_rng(0).permutation(codes), 2)
    grouped, alone = (
        tune("knn", X, coins, groups)[1] for groups in (np.arange(120) // 2, np.arange(120))
    )
    assert grouped["log_loss"] > 1.05 > alone["log_loss"] + 0.1


def test_a_class_that_cannot_be_held_out_is_not_judged():
    X, codes = make_features()
    codes, groups = np.append(codes, [3, 3]), np.append(np.arange(120), [120, 120])
    X = np.vstack([X, np.full((2, 12), 5, np.float32)])
    _, tuned = tune("knn", X, codes, groups)
    _, without = tune("knn", X[:120], codes[:120])
    assert tuned["log_loss"] == pytest.approx(without["log_loss"], abs=0.1)


def test_the_default_stays_where_no_row_can_be_held_out():
    X, codes = make_features()
    head, tuned = tune("knn", X, codes, np.zeros(120, int))
    assert tuned["log_loss"] is tuned["default_log_loss"] is None
    assert tuned["chosen"] == {"variance_threshold": "1%", "scaling": "as-is"}
    assert head.predict_proba(X).shape == (120, 3)


@pytest.mark.parametrize("head", ["bagged-sgd", "knn"])
def test_blocks_side_by_side_are_tuned_and_saved_heads_predict_the_same(
    head, tmp_path, monkeypatch
):
    few = {"variance_threshold": ("1%",), "scaling": ("as-is", "standardised")}
    monkeypatch.setitem(GRIDS, head, few)
    X, codes = make_features()
    X = drown(X)
    everywhere = np.ones(120, bool)
    labels = {
        "color": Labels("color", tuple("abc"), True, np.eye(3, dtype=bool)[codes], everywhere)
    }
    model, _, _ = fit_heads(
        X,
        labels,
        np.arange(120),
        HeadSettings.of(head, tune=True, n_folds=3),
        columns={"color": ((0, 3), (3, 12))},
        n_jobs=1,
    )
    assert set(model.heads["color"].tuned) == {"chosen", "log_loss", "default_log_loss"}
    (tmp_path / "heads.skops").write_bytes(heads_content(model))
    loaded = load_heads(tmp_path / "heads.skops")
    assert loaded.heads["color"].tuned == model.heads["color"].tuned
    np.testing.assert_array_equal(loaded.predict(X)["color"], model.predict(X)["color"])
