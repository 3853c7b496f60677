"""An object store without space is an error that says what to do."""

import sys

import numpy as np
import pytest

from featurepipe.cluster.connecting import connected
from featurepipe.cluster.spreading import call_each, spread
from featurepipe.errors import ClusterError
from ray_clusters import OBJECT_STORE_BYTES, two_nodes

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def nodes():
    """A cluster whose object store may not use the disk."""
    cloudpickle = pytest.importorskip("ray.cloudpickle")
    # Workers do not find this module.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with two_nodes(local_fs_capacity_threshold=0.001) as nodes, connected(nodes.address), spread():
        yield nodes


def test_an_object_store_without_space_is_an_error(nodes):
    X = np.ones(OBJECT_STORE_BYTES // 2, np.float32)
    with pytest.raises(ClusterError, match=r"no space left.*--object-store-memory.*fit --memory"):
        list(call_each(double_sum, X, [1]))
    assert list(call_each(double_sum, X[:1000], [1])) == [2000.0]


def double_sum(X, item):
    return 2 * float(X.sum())


def too_large(_, item):
    return np.ones(OBJECT_STORE_BYTES // 2, np.float32)


def test_a_result_without_space_is_an_error(nodes):
    with pytest.raises(ClusterError, match="no space left"):
        list(call_each(too_large, None, [1]))
