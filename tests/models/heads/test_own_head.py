"""Estimators of the user's own as heads: what they are in words, seeds, and what is refused."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.cluster import KMeans
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier, OutputCodeClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer
from sklearn.svm import SVC, LinearSVC

from featurepipe.errors import UsageError
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.heads.own_head import OwnHead, title_of
from featurepipe.models.heads.pipelines import build_head
from own_classifiers import NearestMean


def test_the_estimator_is_cloned_and_seeded_throughout():
    given = make_pipeline(Normalizer(), RandomForestClassifier(7)).fit([[1.0], [2.0]], [0, 1])
    own = OwnHead.of(given, 3)
    assert own.estimator[-1].get_params()["random_state"] == 3
    assert not hasattr(own.estimator[-1], "estimators_")
    assert given[-1].random_state is None and hasattr(given[-1], "estimators_")
    assert own.build() is not own.estimator
    nested = OwnHead.of(GridSearchCV(LinearSVC(), {"C": [1, 2]}), 3)
    assert nested.estimator.estimator.random_state == 3
    assert OwnHead.of(LinearSVC(random_state=5), 3).estimator.random_state == 5


def test_in_words():
    pipeline = make_pipeline(Normalizer(), make_pipeline(SVC(C=10)))
    assert title_of(pipeline) == "SVC"
    assert title_of(GridSearchCV(SVC(), {})) == "GridSearchCV"
    settings = HeadSettings.of(pipeline)
    assert (settings.head, settings.solver) == ("SVC", None)
    assert settings.own.parameters == (
        "Pipeline(steps=[('normalizer', Normalizer()), ('pipeline', "
        "Pipeline(steps=[('svc', SVC(C=10, random_state=0))]))])"
    )


def test_the_digest_is_that_of_all_parameters():
    def digest(estimator, seed=0):
        return OwnHead.of(estimator, seed).digest

    long = list(range(100))
    estimators = [
        LinearSVC(),
        LinearSVC(C=2),
        LinearSVC(C=2, random_state=1),
        LinearSVC(class_weight={0: 1, 1: 2}),
        LinearSVC(class_weight={0: 1, 1: 3}),
        LogisticRegression(),
        NearestMean(),
        NearestMean(power=np.arange(2000.0)),
        NearestMean(power=np.arange(2000.0) * (np.arange(2000) != 1000)),
        GridSearchCV(LinearSVC(), {"C": long}),
        GridSearchCV(LinearSVC(), {"C": [*long[:-1], 7]}),
        NearestMean(power=Box(1)),
        NearestMean(power=Box(2)),
        NearestMean(power=abs),
    ]
    digests = [digest(estimator) for estimator in estimators]
    assert len(set(digests)) == len(digests)
    assert digests == [digest(estimator) for estimator in estimators]
    assert digest(LinearSVC(), seed=1) == digest(LinearSVC(random_state=1))


class Box:
    """Something whose text holds an address."""

    def __init__(self, content):
        self.content = content


def test_an_address_is_no_part_of_the_parameters():
    assert " at 0x" not in OwnHead.of(NearestMean(power=Box(1)), 0).parameters


@pytest.mark.parametrize(
    ("estimator", "said"),
    [
        (SVC, "The head is a class, not a scikit-learn estimator"),
        (3, "The head is a int, not a scikit-learn estimator"),
        (Ridge(), "The head Ridge is no classifier"),
        (KMeans(), "The head KMeans is no classifier"),
        (BaseEstimator(), "The head BaseEstimator is no classifier"),
        (make_pipeline(Normalizer(), Ridge()), "The head Ridge is no classifier"),
        (OutputCodeClassifier(SVC()), "has neither decision_function nor predict_proba"),
        (type("../x", (SVC,), {})(), "The name '../x' of the head's class is no name in Python"),
        (FrozenEstimator(SVC()), "The head is a FrozenEstimator"),
        (
            LinearSVC(random_state=np.random.RandomState(0)),
            "The parameter random_state of the head LinearSVC is a generator",
        ),
        (
            GridSearchCV(LinearSVC(random_state=np.random.RandomState(0)), {"C": [1]}),
            "The parameter estimator__random_state of the head GridSearchCV",
        ),
    ],
)
def test_what_cannot_be_a_head_is_refused(estimator, said):
    with pytest.raises(UsageError) as caught:
        HeadSettings.of(estimator)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"solver": "sklearn"}, "--solver sklearn only applies to --head bagged-sgd"),
        ({"tune": True}, "--tune does not know what to try for the head SVC"),
    ],
)
def test_options_of_featurepipes_own_heads_are_refused(options, said):
    with pytest.raises(UsageError) as caught:
        HeadSettings.of(SVC(), **options)
    assert said in str(caught.value)


def test_a_pipeline_is_built_around_it():
    settings = HeadSettings.of(SVC(C=2), variance_threshold="10%")
    kinds = [type(step).__name__ for _, step in build_head(settings, 10).steps]
    assert kinds == ["RelativeVarianceThreshold", "SVC"]
    # A forest itself would answer sets of labels with a list of arrays.
    sets = build_head(HeadSettings.of(RandomForestClassifier()), 10, label_sets=True)
    assert isinstance(sets[-1], OneVsRestClassifier)
    assert isinstance(sets[-1].estimator, RandomForestClassifier)
    blocks = build_head(settings, 10, widths=[3, 4])
    assert isinstance(blocks, Pipeline) and len(blocks[0].transformers) == 2


def test_settings_as_values_decide_like_the_settings():
    one, other = (HeadSettings.of(SVC(C=C)).as_dict() for C in (1, 2))
    assert one != other and one["own"] != other["own"]
    assert "own" not in HeadSettings.of("knn").as_dict()
