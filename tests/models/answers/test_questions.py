import numpy as np

from featurepipe.manifest import Labels
from featurepipe.models.answers.questions import Question, make_questions
from featurepipe.predictions import Task
from featurepipe.splits import pool_rare


def exclusive_labels(attribute, codes, n_classes):
    codes = np.asarray(codes)
    indicator = codes[:, None] == np.arange(n_classes)
    return Labels(attribute, tuple("abc"[:n_classes]), True, indicator, codes >= 0)


LABELS = {
    "color": exclusive_labels("color", [0, 0, 1, 1, -1, 0, 1, 1], 2),
    "kind": exclusive_labels("kind", [0, 0, 1, 1, 0, 2, 2, 0], 3),
}
COLUMNS = {"color": ((0, 4),), "kind": ((4, 9),)}


def ask(task, rows=slice(None)):
    labels = {name: truth.take(np.arange(8)[rows]) for name, truth in LABELS.items()}
    return make_questions(labels, task, COLUMNS, np.arange(8)[rows])


def test_each_attribute_is_asked_of_its_labelled_rows():
    color, kind = ask("per-attribute").questions
    assert color.rows.tolist() == [0, 1, 2, 3, 5, 6, 7]
    assert kind.rows.tolist() == list(range(8))
    assert (color.columns, kind.columns) == (((0, 4),), ((4, 9),))


def test_one_head_for_all_labels_is_asked_of_rows_with_all_of_them():
    (question,) = ask("multi-label").questions
    assert question.rows.tolist() == [0, 1, 2, 3, 5, 6, 7]
    assert question.truth.shape == (7, 5)
    assert not question.exclusive


def test_a_joint_head_is_asked_for_the_combinations_that_there_are():
    rows = [0, 1, 2, 3]
    questions = ask("joint", rows)
    assert questions.task is Task.JOINT
    assert questions.combinations.tolist() == [[0, 0], [1, 1]]
    (question,) = questions.questions
    assert question.truth.argmax(axis=1).tolist() == [0, 0, 1, 1]
    assert ask("per-attribute").combinations.shape == (0, 2)


def test_some_rows_of_a_question():
    color = ask("per-attribute").questions[0].take(np.array([5, 0]))
    assert color.rows.tolist() == [6, 0]
    assert color.truth.argmax(axis=1).tolist() == [1, 0]
    assert color.groups.tolist() == [6, 0]


def test_rare_strata_are_merged():
    strata = np.array([7, 7, 7, 3, 5, 5, 9])
    merged = pool_rare(strata, 3)
    assert len(set(merged[:3])) == 1
    assert len(set(merged[3:])) == 1
    assert merged[0] != merged[3]
    assert len(set(pool_rare(strata, 2))) == 3


def test_sets_of_labels_too_rare_for_every_fold_share_a_stratum():
    truth = np.array([[1, 0]] * 4 + [[1, 1]] + [[0, 0]], bool)
    question = Question("tags", np.arange(6), truth, False, (), np.arange(6))
    strata = question.strata(3)
    assert len(set(strata[:4])) == 1
    assert strata[4] == strata[5] != strata[0]
