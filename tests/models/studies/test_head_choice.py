import numpy as np
import pytest

from featurepipe.manifest.labels import labels_of
from featurepipe.models.answers.questions import make_questions
from featurepipe.models.heads.fitting import fit_one_head
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.studies.head_choice import HEADS, choose_head
from featurepipe.models.studies.hold_outs import HoldOuts

COMBINATIONS = [(0, 0), (0, 1), (1, 1), (1, 2), (2, 0), (2, 2)]
ALL_COLUMNS = ((0, 12),)
COLUMNS = {"color": ALL_COLUMNS, "category": ALL_COLUMNS}


@pytest.fixture(scope="module")
def world():
    """Two attributes in six combinations, and features that show both."""
    rng = np.random.default_rng(0)
    codes = np.repeat(COMBINATIONS, 15, axis=0)
    X = rng.normal(0, 0.6, (len(codes), 12)).astype(np.float32)
    X[np.arange(len(X)), codes[:, 0]] += 1
    X[np.arange(len(X)), 3 + codes[:, 1]] += 1
    labels = {
        name: labels_of(name, [(str(code),) for code in column])
        for name, column in zip(COLUMNS, codes.T, strict=True)
    }
    return X, labels, np.arange(len(X))


@pytest.mark.parametrize("objective", ["balanced", "seen", "unseen"])
def test_the_best_head_by_the_objective_is_chosen(world, objective):
    trials = choose_head(*world, HeadSettings.of("knn"), COLUMNS, ALL_COLUMNS, objective=objective)
    assert [trial.head for trial in trials] == list(HEADS)
    scores = [
        {"seen": t.seen_accuracy, "unseen": t.unseen_accuracy}.get(
            objective, (t.seen_accuracy + t.unseen_accuracy) / 2
        )
        for t in trials
    ]
    assert [trial.chosen for trial in trials] == [score == max(scores) for score in scores]
    assert all(0.2 < trial.unseen_accuracy < trial.seen_accuracy < 1 for trial in trials)


def test_accuracies_are_those_of_heads_fitted_without_the_rows(world):
    X, labels, groups = world
    settings = HeadSettings.of("logistic")
    (trial,) = choose_head(*world, settings, COLUMNS, ALL_COLUMNS, heads=["logistic"])
    accuracies = []
    questions = make_questions(labels, "per-attribute", COLUMNS, groups).questions
    for attribute, question in zip(HoldOuts.of(labels, groups, 0), questions, strict=True):
        right = []
        for asked, away in attribute.unseen[0].folds:
            kept = np.setdiff1d(np.arange(len(X)), away)
            head = fit_one_head(X, question, kept, settings)
            answers = head.predict_proba(X[asked]).argmax(axis=1)
            right += (answers == attribute.labels.codes[asked]).tolist()
        accuracies.append(np.mean(right))
    assert trial.unseen_accuracy == pytest.approx(np.mean(accuracies))


def test_an_attribute_alone_is_judged_by_ordinary_folds(world):
    X, labels, groups = world
    alone = {"color": labels["color"]}
    columns = {"color": ALL_COLUMNS}
    trials = choose_head(X, alone, groups, HeadSettings.of(), columns, ALL_COLUMNS, n_jobs=1)
    assert all(np.isnan(trial.unseen_accuracy) for trial in trials)
    assert sum(trial.chosen for trial in trials) == 1


def test_an_attribute_reads_the_ordinary_block_if_the_head_is_worse_with_the_chosen_one(world):
    # Columns 3 to 6 say nothing of the color.
    chosen = {"color": ((3, 6),), "category": ((3, 6),)}
    settings = HeadSettings.of("logistic")
    (trial,) = choose_head(*world, settings, chosen, ALL_COLUMNS, heads=["logistic"])
    assert trial.ordinary == ("color",)
    assert trial.seen_accuracy > 0.6
    (kept,) = choose_head(
        *world, settings, chosen, ALL_COLUMNS, heads=["logistic"], objective="unseen"
    )
    assert kept.ordinary == ()
    assert kept.seen_accuracy < trial.seen_accuracy


def test_rows_that_cannot_be_held_out_are_not_judged_by_what_another_attribute_reads():
    # All of color 0 are of category 0: these rows cannot be held out, the others can.
    rng = np.random.default_rng(0)
    codes = np.repeat([(0, 0), (1, 0), (1, 1), (2, 0), (2, 1)], 15, axis=0)
    X = rng.normal(0, 0.3, (len(codes), 12)).astype(np.float32)
    X[np.arange(len(X)), codes[:, 0]] += 1
    X[np.arange(len(X)), 3 + codes[:, 1]] += 1
    labels = {
        name: labels_of(name, [(str(code),) for code in column])
        for name, column in zip(COLUMNS, codes.T, strict=True)
    }
    settings = HeadSettings.of("logistic")
    # What color reads shows color alone, so that its head is hardly ever mistaken for category.
    columns = {"color": ((0, 3),), "category": ((3, 6),)}
    (trial,) = choose_head(
        X, labels, np.arange(len(X)), settings, columns, ALL_COLUMNS, heads=["logistic"]
    )
    assert trial.ordinary == ()
    assert trial.unseen_accuracy > 0.9
