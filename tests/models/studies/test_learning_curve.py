import numpy as np
import pytest

from featurepipe import metrics
from featurepipe.manifest import Labels
from featurepipe.models.heads.fitting import fit_heads
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.studies.learning_curve import N_DRAWS, Doubling, learning_curve
from featurepipe.splits import inner_folds


def exclusive_labels(codes, n_classes, attribute="thing"):
    codes = np.asarray(codes)
    names = tuple("abcdefgh"[:n_classes])
    indicator = codes[:, None] == np.arange(n_classes)
    return Labels(attribute, names, True, indicator, codes >= 0)


def make_images(n, noise, seed=0, n_features=30):
    rng = np.random.default_rng(seed)
    codes = rng.integers(3, size=n)
    X = rng.normal(size=(n, n_features)) * noise
    X[np.arange(n), codes] += 1
    return X.astype(np.float32), exclusive_labels(codes, 3)


def curve(X, labels, groups=None, head="knn", **settings):
    groups = np.arange(len(X)) if groups is None else groups
    settings = HeadSettings.of(**{"head": head, "calibrate": "none", "n_folds": 3, **settings})
    return learning_curve(X, labels, groups, settings, n_jobs=1)


def test_the_whole_share_is_cross_validation():
    X, labels = make_images(150, noise=0.6)
    points, _ = curve(X, {"thing": labels})
    settings = HeadSettings.of("knn", calibrate="none", n_folds=3)
    accuracies, losses = [], []
    for draw in range(N_DRAWS):
        said = np.empty((150, 3))
        for training, validation in inner_folds(labels.codes, np.arange(150), 3, draw):
            known = {"thing": labels.take(training)}
            model = fit_heads(X[training], known, training, settings, n_jobs=1).model
            said[validation] = model.predict(X[validation])["thing"]
        accuracies.append(np.mean(labels.codes == said.argmax(axis=1)))
        losses.append(metrics.log_losses(labels.codes, said).mean())
    whole = points[-1]
    assert (whole.share, whole.n_train) == (1.0, 100)
    assert whole.accuracy == pytest.approx(np.mean(accuracies))
    assert whole.accuracy_spread == pytest.approx(np.std(accuracies, ddof=1))
    assert whole.log_loss == pytest.approx(np.mean(losses))
    assert whole.log_loss_spread == pytest.approx(np.std(losses, ddof=1))


def test_more_images_help_where_they_do():
    X, labels = make_images(240, noise=0.5)
    points, (doubling,) = curve(X, {"thing": labels})
    accuracies = [point.accuracy for point in points]
    assert accuracies == sorted(accuracies)
    assert [point.n_train for point in points] == pytest.approx([20, 40, 80, 160], abs=2)
    assert doubling.gain == pytest.approx(accuracies[-1] - accuracies[-2])
    assert doubling.gain > doubling.margin
    assert doubling.in_words().endswith(": more images would help.")


def test_more_images_help_little_where_all_is_learnt():
    X, labels = make_images(240, noise=0.05)
    points, (doubling,) = curve(X, {"thing": labels})
    assert points[-1].accuracy == 1
    assert doubling.in_words() == (
        f"thing: 1.000 on 160 images; doubling from {doubling.n_half} gained 0.000 ± 0.000: more "
        "images would help little."
    )


def test_few_images_do_not_tell():
    X, labels = make_images(36, noise=0.5, seed=2)
    _, (doubling,) = curve(X, {"thing": labels})
    assert doubling.verdict == "too uncertain to say whether more images would help"


def test_copies_are_no_further_evidence():
    X, labels = make_images(120, noise=0.5)
    _, (single,) = curve(X, {"thing": labels})
    twice = np.repeat(np.arange(120), 2)
    _, (doubled,) = curve(X[twice], {"thing": labels.take(twice)}, groups=twice)
    assert doubled.n_train == 2 * single.n_train
    assert doubled.margin == pytest.approx(single.margin, rel=0.3)


@pytest.mark.parametrize("task", ["multi-label", "joint"])
def test_one_head_for_all_attributes(task):
    X, labels = make_images(120, noise=0.3)
    other = exclusive_labels(np.arange(120) % 2, 2, "other")
    X[:, 9] += np.arange(120) % 2
    points, doublings = curve(X, {"thing": labels, "other": other}, task=task)
    assert [each.attribute for each in doublings] == ["thing", "other"]
    assert all(point.accuracy > 0.8 for point in points if point.share == 1)


def test_images_without_a_label_and_rare_classes_take_no_harm():
    X, labels = make_images(120, noise=0.3)
    codes = labels.codes
    codes[:20] = -1
    codes[20:22] = 3
    points, _ = curve(X, {"thing": exclusive_labels(codes, 4)})
    assert points[-1].n_train < 68
    assert points[-1].accuracy > 0.8


@pytest.mark.parametrize(
    ("gain", "margin", "verdict"),
    [
        (0.02, 0.015, "more images would help"),
        (0.02, 0.025, "too uncertain to say whether more images would help"),
        (0.005, 0.004, "more images would help little"),
        (0.005, 0.006, "too uncertain to say whether more images would help"),
        (-0.02, 0.01, "more images would help little"),
    ],
)
def test_the_verdict_is_by_a_stated_rule(gain, margin, verdict):
    assert Doubling("thing", 50, 100, 0.9, gain, margin).verdict == verdict
