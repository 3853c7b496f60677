import re

import numpy as np
import pytest
from sklearn.ensemble import BaggingClassifier
from sklearn.feature_selection import VarianceThreshold
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import make_pipeline

from featurepipe import metrics
from featurepipe.errors import FitError, UnknownNameError, UsageError
from featurepipe.manifest import Labels
from featurepipe.models.answers.head import FeatureHead
from featurepipe.models.heads.fitting import fit_heads
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.predictions import Task

HEADS = ["bagged-sgd", "logistic", "svm", "knn"]
CALIBRATIONS = ["sigmoid", "isotonic", "temperature", "none"]
TASKS = ["per-attribute", "multi-label"]


def exclusive_labels(attribute, codes, classes):
    codes = np.asarray(codes)
    labelled = codes >= 0
    indicator = (codes[:, None] == np.arange(len(classes))) & labelled[:, None]
    return Labels(attribute, tuple(classes), True, indicator, labelled)


def set_labels(attribute, indicator, classes):
    indicator = np.asarray(indicator, bool)
    return Labels(attribute, tuple(classes), False, indicator, np.ones(len(indicator), bool))


def make_images(n=120, n_features=24, noise=0.4, seed=0):
    """Features that show a colour (3 classes) and a category (4)."""
    rng = np.random.default_rng(seed)
    colors, categories = rng.integers(3, size=n), rng.integers(4, size=n)
    X = np.abs(rng.normal(size=(n, n_features))) * noise
    X[np.arange(n), colors] += 1
    X[np.arange(n), 10 + categories] += 1
    labels = {
        "color": exclusive_labels("color", colors, ["black", "blue", "red"]),
        "category": exclusive_labels("category", categories, ["dress", "jeans", "shirt", "shoes"]),
    }
    return X.astype(np.float32), labels


def fit(X, labels, groups=None, n_jobs=2, progress=None, columns=None, **settings):
    groups = np.arange(len(X)) if groups is None else groups
    settings = HeadSettings.of(**{"head": "logistic", **settings})
    fitted = fit_heads(
        X, labels, groups, settings, columns=columns, n_jobs=n_jobs, progress=progress
    )
    return fitted.model, fitted.out_of_fold


def accuracy(labels, probabilities):
    return np.mean(labels.codes == probabilities.argmax(axis=1))


def test_settings_say_what_they_hold():
    settings = HeadSettings.of("logistic", task="joint")
    assert (settings.solver, settings.task, settings.variance_threshold) == ("lbfgs", "joint", "1%")
    assert settings.task is Task.JOINT
    with pytest.raises(UnknownNameError, match="Unknown solver of logistic 'minibatch'"):
        HeadSettings("logistic", "minibatch")


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("calibrate", CALIBRATIONS)
@pytest.mark.parametrize(
    ("head", "solver", "least"),
    [
        ("bagged-sgd", "minibatch", 0.78),
        ("bagged-sgd", "sklearn", 0.8),
        ("logistic", None, 0.8),
        ("svm", None, 0.8),
        ("knn", None, 0.75),
    ],
)
def test_heads_learn_every_attribute(head, solver, least, calibrate, task):
    X, labels = make_images()
    X_test, truth = make_images(seed=1)
    model, out_of_fold = fit(X, labels, head=head, solver=solver, calibrate=calibrate, task=task)
    predicted = model.predict(X_test)
    for name in labels:
        assert accuracy(truth[name], predicted[name]) > least
        assert accuracy(labels[name], out_of_fold[name]) > least
        for probabilities in (predicted[name], out_of_fold[name]):
            assert probabilities.shape == (120, len(labels[name].classes))
            assert probabilities.dtype == np.float64
            assert probabilities.min() >= 0
            assert probabilities.max() <= 1
            if task == "per-attribute":
                np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


def test_uncalibrated_bagged_sgd_is_the_anchors_recipe_bit_for_bit():
    X, labels = make_images()
    model, _ = fit(
        X,
        labels,
        head="bagged-sgd",
        solver="sklearn",
        calibrate="none",
        variance_threshold="0.01",
        seed=7,
    )
    by_hand = make_pipeline(
        VarianceThreshold(0.01),
        BaggingClassifier(
            SGDClassifier(
                loss="log_loss",
                penalty="elasticnet",
                alpha=1 / len(X),
                class_weight="balanced",
                fit_intercept=False,
                tol=1e-3,
            ),
            n_estimators=10,
            max_samples=0.5,
            max_features=0.5,
            bootstrap_features=True,
            random_state=7,
        ),
    )
    for name, of_attribute in labels.items():
        by_hand.fit(X, of_attribute.codes)
        np.testing.assert_array_equal(model.predict(X)[name], by_hand.predict_proba(X))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("head", HEADS)
def test_the_same_seed_gives_the_same_model_whatever_the_threads(head, task):
    X, labels = make_images(n=60)
    results = [fit(X, labels, head=head, task=task, n_jobs=n_jobs, seed=5) for n_jobs in (1, 3)]
    for name in labels:
        np.testing.assert_array_equal(*[model.predict(X)[name] for model, _ in results])
        np.testing.assert_array_equal(*[out_of_fold[name] for _, out_of_fold in results])


def test_another_seed_gives_another_model():
    X, labels = make_images(n=60)
    first, second = (fit(X, labels, head="bagged-sgd", seed=seed)[0] for seed in (0, 1))
    assert (first.predict(X)["color"] != second.predict(X)["color"]).any()


@pytest.mark.parametrize("calibrate", CALIBRATIONS)
def test_out_of_fold_rows_tell_nothing_of_their_own_label(calibrate):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 2000)).astype(np.float32)
    labels = {"coin": exclusive_labels("coin", rng.integers(2, size=300), ["heads", "tails"])}
    model, out_of_fold = fit(X, labels, head="bagged-sgd", calibrate=calibrate)
    # Learnt by heart, as far as the members drew the rows.
    assert model.heads["coin"].estimator.score(X, labels["coin"].codes) > 0.85
    assert 0.4 < accuracy(labels["coin"], out_of_fold["coin"]) < 0.6


def test_logistic_learns_little_where_there_is_nothing_to_learn():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 400)).astype(np.float32)
    labels = {"coin": exclusive_labels("coin", rng.integers(2, size=300), ["heads", "tails"])}
    model, _ = fit(X, labels, calibrate="none")
    np.testing.assert_allclose(model.predict(X)["coin"], 0.5, atol=0.1)


def test_groups_never_part():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 5)
    X = rng.normal(size=(60, 30))[groups].astype(np.float32)
    labels = {"coin": exclusive_labels("coin", rng.integers(2, size=60)[groups], ["a", "b"])}
    _, apart = fit(X, labels, groups=groups)
    _, together = fit(X, labels)
    assert accuracy(labels["coin"], apart["coin"]) < 0.62
    assert accuracy(labels["coin"], together["coin"]) > 0.72


# The raw probabilities of the minibatch solver are better: less is left to gain.
@pytest.mark.parametrize(("solver", "gain"), [("minibatch", 0.03), ("sklearn", 0.05)])
def test_out_of_fold_probabilities_are_calibrated(solver, gain):
    X, labels = make_images(n=300, noise=1.2)
    _, raw = fit(X, labels, head="bagged-sgd", solver=solver, calibrate="none")
    _, calibrated = fit(X, labels, head="bagged-sgd", solver=solver, calibrate="temperature")
    for name, of_attribute in labels.items():
        before = metrics.log_losses(of_attribute.codes, raw[name]).mean()
        after = metrics.log_losses(of_attribute.codes, calibrated[name]).mean()
        assert after < before - gain


@pytest.mark.parametrize("calibrate", CALIBRATIONS)
def test_classes_never_trained_have_probability_0(calibrate):
    X, labels = make_images()
    rows = np.flatnonzero(labels["color"].codes != 1)
    model, out_of_fold = fit(X[rows], {"color": labels["color"].take(rows)}, calibrate=calibrate)
    predicted = model.predict(X)["color"]
    assert (predicted[:, 1] == 0).all()
    assert (out_of_fold["color"][:, 1] == 0).all()
    np.testing.assert_allclose(predicted.sum(axis=1), 1)
    assert accuracy(labels["color"].take(rows), predicted[rows]) > 0.9


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("calibrate", CALIBRATIONS)
def test_classes_of_one_group_cannot_be_held_out_but_are_learnt(calibrate, task):
    X, labels = make_images()
    red = labels["color"].codes == 2
    groups = np.where(red, 1000, np.arange(len(X)))
    model, out_of_fold = fit(X, labels, groups=groups, calibrate=calibrate, task=task)
    assert accuracy(labels["color"].take(red), model.predict(X[red])["color"]) > 0.9
    assert (out_of_fold["color"][red, 2] == 0).all()
    assert accuracy(labels["color"].take(~red), out_of_fold["color"][~red]) > 0.8


@pytest.mark.parametrize("calibrate", CALIBRATIONS)
@pytest.mark.parametrize("head", HEADS)
def test_two_classes_are_enough(head, calibrate):
    X, labels = make_images()
    rows = labels["color"].codes < 2
    two = exclusive_labels("color", labels["color"].codes[rows], ["black", "blue"])
    model, _ = fit(X[rows], {"color": two}, head=head, calibrate=calibrate)
    probabilities = model.predict(X[rows])["color"]
    assert accuracy(two, probabilities) > 0.9
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_images_without_a_label_are_left_out_of_that_attribute_only():
    X, labels = make_images()
    codes = labels["color"].codes
    codes[:40] = -1
    X[0] = 1e6
    partial = labels | {"color": exclusive_labels("color", codes, labels["color"].classes)}
    with_gap, out_of_fold = fit(X, partial)
    without, _ = fit(X[40:], {"color": labels["color"].take(np.arange(40, 120))})
    np.testing.assert_allclose(with_gap.predict(X)["color"], without.predict(X)["color"])
    np.testing.assert_array_equal(out_of_fold["color"][:40], with_gap.predict(X)["color"][:40])


def test_multi_label_heads_leave_out_images_that_lack_a_label(caplog):
    X, labels = make_images()
    codes = labels["color"].codes
    codes[:30] = -1
    partial = labels | {"color": exclusive_labels("color", codes, labels["color"].classes)}
    with caplog.at_level("INFO", "featurepipe"):
        with_gap, out_of_fold = fit(X, partial, task="multi-label")
    assert "Left out 30 of 120 training images" in caplog.text
    rows = np.arange(30, 120)
    without, _ = fit(
        X[rows], {name: each.take(rows) for name, each in labels.items()}, task="multi-label"
    )
    for name in labels:
        np.testing.assert_allclose(with_gap.predict(X)[name], without.predict(X)[name])
        assert np.isfinite(out_of_fold[name]).all()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("calibrate", CALIBRATIONS)
def test_sets_of_labels_are_answered_label_by_label(head, calibrate):
    X, labels = make_images(n=200)
    red = labels["color"].codes == 2
    indicator = np.column_stack([red, ~red & (X[:, 20] > 0.3), np.zeros(200), np.ones(200)])
    tags = set_labels("tags", indicator, ["red", "b", "never", "always"])
    model, out_of_fold = fit(X, {"tags": tags}, head=head, calibrate=calibrate)
    probabilities = model.predict(X)["tags"]
    assert np.mean(red == (probabilities[:, 0] > 0.5)) > 0.9
    assert (probabilities[:, 2:] == [0, 1]).all()
    assert (out_of_fold["tags"][:, 2:] == [0, 1]).all()


@pytest.mark.parametrize("calibrate", CALIBRATIONS)
def test_a_single_label_is_a_yes_or_no(calibrate):
    X, labels = make_images(n=200)
    red = labels["color"].codes == 2
    model, _ = fit(X, {"red": set_labels("red", red[:, None], ["red"])}, calibrate=calibrate)
    assert np.mean(red == (model.predict(X)["red"][:, 0] > 0.5)) > 0.9


def test_answers_name_the_classes_and_sum_to_1():
    X, labels = make_images()
    model, _ = fit(X, labels, task="multi-label")
    classes, probabilities = model.in_words(model.predict(X))["category"]
    assert classes == ("dress", "jeans", "shirt", "shoes")
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert not np.allclose(model.predict(X)["category"].sum(axis=1), 1)


def test_no_images_get_no_probabilities():
    X, labels = make_images()
    assert fit(X, labels)[0].predict(X[:0])["color"].shape == (0, 3)


@pytest.mark.parametrize(("task", "n_fits"), [("per-attribute", 8), ("multi-label", 4)])
def test_progress_counts_every_fit(task, n_fits):
    X, labels = make_images(n=40)
    calls = []
    fit(X, labels, task=task, n_folds=3, progress=lambda *call: calls.append(call))
    assert calls == [(n_done, n_fits) for n_done in range(1, n_fits + 1)]


def test_features_that_are_not_finite_are_refused():
    X, labels = make_images()
    X[7, 3], X[9, 0] = np.nan, np.inf
    with pytest.raises(FitError, match=r"2 of 120 .* not finite \(the first is row 7\)"):
        fit(X, labels)


@pytest.mark.parametrize(
    ("codes", "reason"),
    [
        ([-1] * 8, "No training image has a label of attribute 'color'"),
        ([1] * 8, "All 8 training images have the same label of attribute 'color' (blue)"),
        ([0, 0, 1, 1, 2, 0, 0, 1], "'color' has classes with a single training image: red."),
    ],
)
@pytest.mark.parametrize("task", TASKS)
def test_labels_that_nothing_can_be_learnt_from_are_refused(codes, reason, task):
    X, _ = make_images(n=8)
    labels = {"color": exclusive_labels("color", codes, ["black", "blue", "red"])}
    with pytest.raises(FitError, match=re.escape(reason)):
        fit(X, labels, task=task)


def test_classes_of_one_group_each_cannot_be_calibrated():
    X, labels = make_images()
    rows = labels["color"].codes < 2
    X, codes = X[rows], labels["color"].codes[rows]
    two = {"color": exclusive_labels("color", codes, ["black", "blue"])}
    with pytest.raises(FitError, match="'color' cannot be calibrated"):
        fit(X, two, groups=codes)
    model, _ = fit(X, two, groups=codes, calibrate="none")
    assert accuracy(two["color"], model.predict(X)["color"]) > 0.8


def test_thresholds_that_remove_every_feature_are_refused():
    X, labels = make_images()
    with pytest.raises(FitError, match="Set --variance-threshold 1% or a number below"):
        fit(X, labels, variance_threshold="100")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"head": "logistics"}, "Unknown head 'logistics'. Did you mean 'logistic'?"),
        ({"task": "multilabel"}, "Unknown task 'multilabel'. Did you mean 'multi-label'?"),
        ({"calibrate": "isotone"}, "Unknown calibration 'isotone'. Did you mean 'isotonic'?"),
        ({"variance_threshold": "a bit"}, "The variance threshold 'a bit' cannot be read"),
    ],
)
def test_settings_that_cannot_be_read_are_refused(settings, reason):
    with pytest.raises(UsageError, match=re.escape(reason)) as raised:
        HeadSettings.of(**settings)
    assert isinstance(raised.value, UnknownNameError) == reason.startswith("Unknown")


def test_a_head_reads_its_own_blocks_alone():
    X, labels = make_images(n=60)
    columns = {"color": ((0, 10),), "category": ((10, 17), (17, 24))}
    model, out_of_fold = fit(X, labels, columns=columns)
    other = X.copy()
    other[:, 10:] += 1
    np.testing.assert_array_equal(model.predict(other)["color"], model.predict(X)["color"])
    assert not np.allclose(model.predict(other)["category"], model.predict(X)["category"])
    changed, changed_out_of_fold = fit(other, labels, columns=columns)
    np.testing.assert_array_equal(changed_out_of_fold["color"], out_of_fold["color"])
    np.testing.assert_array_equal(changed.predict(X)["color"], model.predict(X)["color"])
    assert model.heads["category"].select(X).tolist() == X[:, 10:].tolist()


@pytest.mark.parametrize("head", HEADS)
def test_no_block_drowns_another(head):
    X, labels = make_images(n=90)
    X_test, truth = make_images(n=200, seed=3)
    columns = dict.fromkeys(labels, ((0, 10), (10, 24)))
    model, _ = fit(X, labels, head=head, columns=columns)
    loud, loud_test = X.copy(), X_test.copy()
    loud[:, 10:] *= 1024
    loud_test[:, 10:] *= 1024
    louder, _ = fit(loud, labels, head=head, columns=columns)
    for name in labels:
        expected = accuracy(truth[name], model.predict(X_test)[name])
        assert expected > 0.7
        found = accuracy(truth[name], louder.predict(loud_test)[name])
        # Small batches make bagged SGD sensitive to rounding.
        assert found == pytest.approx(expected, abs=0.05)


def test_a_joint_head_answers_for_attributes_by_the_sum_over_combinations():
    X, labels = make_images(n=300)
    model, _ = fit(X, labels, task="joint", calibrate="none")
    head = model.heads["combinations"]
    of_combinations = head.predict_proba(X)
    assert of_combinations.shape == (300, 12)
    np.testing.assert_allclose(of_combinations.sum(axis=1), 1, atol=1e-6)
    of_color = np.zeros((300, 3))
    for k, (color, _) in enumerate(model.combinations):
        of_color[:, color] += of_combinations[:, k]
    np.testing.assert_allclose(model.predict(X)["color"], of_color, atol=1e-6)


def test_a_joint_head_knows_the_combinations_that_it_was_shown():
    X, labels = make_images(n=300)
    is_blue_jeans = (labels["color"].codes == 1) & (labels["category"].codes == 1)
    known = {name: each.take(~is_blue_jeans) for name, each in labels.items()}
    model, _ = fit(X[~is_blue_jeans], known, task="joint")
    assert len(model.combinations) == 11
    assert [1, 1] not in model.combinations.tolist()


def test_a_joint_head_needs_one_class_of_each_attribute():
    X, labels = make_images(n=60)
    tags = set_labels("tags", labels["color"].indicator, ["a", "b", "c"])
    with pytest.raises(FitError, match=r"'tags' has sets of labels.*--task multi-label"):
        fit(X, {"tags": tags, "category": labels["category"]}, task="joint")


def test_thresholds_of_labels_are_chosen_out_of_fold():
    X, labels = make_images(n=300, noise=0.6)
    tags = set_labels("tags", labels["color"].indicator, ["a", "b", "c"])
    model, out_of_fold = fit(X, {"tags": tags}, thresholds="recall=0.9")
    given = out_of_fold["tags"] > model.thresholds["tags"]
    recalls = (given & tags.indicator).sum(axis=0) / tags.indicator.sum(axis=0)
    assert (recalls >= 0.9).all()
    assert (model.thresholds["tags"] != 0.5).all()
    np.testing.assert_array_equal(
        model.given("tags", out_of_fold["tags"]), out_of_fold["tags"] > model.thresholds["tags"]
    )
    usual, _ = fit(X, {"tags": tags})
    assert usual.thresholds["tags"].tolist() == [0.5, 0.5, 0.5]
    with pytest.raises(UsageError, match="--thresholds f1 only applies to sets of labels"):
        fit(X, labels, thresholds="f1")
    with pytest.raises(UsageError, match="Cannot read the thresholds 'f2'"):
        HeadSettings.of(thresholds="f2")


def test_a_wanted_precision_that_no_threshold_has_is_said(caplog):
    X, labels = make_images(n=120, noise=5)
    tags = set_labels("tags", labels["color"].indicator, ["a", "b", "c"])
    fit(X, {"tags": tags}, thresholds="precision=0.99")
    assert "tags: no threshold reaches precision=0.99 for " in caplog.text


@pytest.mark.parametrize("task", [*TASKS, "joint"])
def test_images_unlike_the_training_ones_are_told_by_each_attributes_features(task):
    X, labels = make_images(n=300, noise=0.2)
    columns = {"color": ((0, 10),), "category": ((10, 24),)}
    if task != "per-attribute":
        columns = dict.fromkeys(labels, ((0, 24),))
    model, _ = fit(X, labels, columns=columns, task=task)
    test, _ = make_images(n=400, noise=0.2, seed=5)
    familiar = model.p_values(test, model.predict(test))
    odd = test.copy()
    odd[:, :10] = np.abs(np.random.default_rng(0).normal(size=(400, 10)))
    strange = model.p_values(odd, model.predict(odd))
    for name in labels:
        assert np.mean(familiar[name] > 0.05) == pytest.approx(0.95, abs=0.04)
        assert len(model.rejectors[name].bank) == 300
    assert np.mean(strange["color"] <= 0.05) > 0.6
    if task == "per-attribute":
        np.testing.assert_array_equal(strange["category"], familiar["category"])


def three_attributes(n, seed):
    X, labels = make_images(n, noise=0.4, seed=seed)
    codes = X[:, 20:22].argmax(axis=1)
    return X, {**labels, "shade": exclusive_labels("shade", codes, ["dark", "light"])}


@pytest.mark.parametrize(("n_train", "targets"), [(60, [0.9]), (200, [0.9, 0.95])])
def test_the_coverage_of_images_is_kept_over_all_attributes(n_train, targets):
    per_image, per_attribute = [], []
    for seed in range(25):
        X, labels = three_attributes(n_train + 300, seed)
        train = {name: of.take(np.arange(n_train)) for name, of in labels.items()}
        model, _ = fit(X[:n_train], train, head="knn")
        p_values = model.p_values(X[n_train:], model.predict(X[n_train:]))
        image_p_values = model.image_p_values(p_values)
        for lowest, values in ((per_image, image_p_values), (per_attribute, p_values)):
            lowest.append(np.min([*values.values()], axis=0))
    for target in targets:
        of_images, of_attributes = (
            np.mean(np.array(lowest) > 1 - target, axis=1) for lowest in (per_image, per_attribute)
        )
        error = np.std(of_images) / np.sqrt(len(of_images))
        assert target - 3 * error < np.mean(of_images) < target + 3 * error + 0.04
        assert np.mean(of_attributes) < target - 3 * error


@pytest.mark.parametrize("task", [*TASKS, "joint"])
def test_with_one_attribute_images_have_its_p_values(task):
    X, labels = make_images(n=150, noise=0.8)
    model, _ = fit(X, {"color": labels["color"]}, task=task)
    test, _ = make_images(n=400, noise=0.8, seed=5)
    p_values = model.p_values(test, model.predict(test))
    assert len(np.unique(p_values["color"])) > 50
    np.testing.assert_array_equal(model.image_p_values(p_values)["color"], p_values["color"])


@pytest.mark.parametrize("task", [*TASKS, "joint"])
def test_images_without_some_labels_count_for_the_coverage(task):
    X, labels = make_images(n=200, noise=0.8)
    codes = np.where(np.arange(200) % 4 == 0, -1, labels["color"].codes)
    some = {**labels, "color": exclusive_labels("color", codes, labels["color"].classes)}
    model, _ = fit(X, some, task=task)
    assert len(model.rejectors["color"].ranks) == 150
    assert len(model.lowest_p_values) == 200
    new, _ = make_images(n=2000, noise=0.8, seed=5)
    image_p_values = model.image_p_values(model.p_values(new, model.predict(new)))
    answered = np.min([*image_p_values.values()], axis=0) > 0.1
    assert answered.mean() == pytest.approx(0.9, abs=0.06)


def test_a_fold_without_classes_to_tell_apart_answers_with_a_constant():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 5)).astype(np.float32)
    # All images with the label are in one of two groups: held out, nobody knows it.
    has = np.arange(40) < 6
    tags = set_labels("tags", has[:, None], ["rare"])
    groups = np.where(has, 0, 1)
    model, out_of_fold = fit(X, {"tags": tags}, groups=groups, calibrate="none", n_folds=2)
    assert out_of_fold["tags"][has, 0].tolist() == [0] * 6
    assert out_of_fold["tags"][~has, 0].tolist() == [1] * 34
    assert isinstance(model.heads["tags"], FeatureHead)
