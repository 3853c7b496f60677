import pytest

from featurepipe.errors import UnknownNameError
from featurepipe.models.heads.registry import HEADS, default_solver, find_head


def test_heads_are_listed():
    assert list(HEADS) == ["bagged-sgd", "logistic", "svm", "knn"]


@pytest.mark.parametrize("find", [default_solver, lambda head: find_head(head, "minibatch")])
def test_unknown_head_gets_the_nearest(find):
    with pytest.raises(UnknownNameError, match=r"Unknown head 'baged-sgd'.*'bagged-sgd'"):
        find("baged-sgd")


def test_solvers():
    assert default_solver("bagged-sgd") == "minibatch"
    assert [default_solver(head) for head in HEADS] == ["minibatch", "lbfgs", "libsvm", "exact"]
    assert find_head("bagged-sgd", "minibatch") is HEADS["bagged-sgd"]["minibatch"]
    with pytest.raises(UnknownNameError, match="Unknown solver of logistic 'minibatch'"):
        find_head("logistic", "minibatch")
