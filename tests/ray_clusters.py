"""A Ray cluster of two nodes on this machine, as tests need it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

OBJECT_STORE_BYTES = 100_000_000


@contextmanager
def two_nodes(n_cpus: int = 1, **settings: Any) -> Iterator[Any]:
    """A cluster of two nodes with so many cores each; yields Ray's `Cluster`.

    `settings` are Ray's own, such as ``local_fs_capacity_threshold``.

    `cluster.address` is what `--ray-address` takes; `cluster.add_node`, `cluster.remove_node`.
    """
    pytest.importorskip("ray", reason="Ray is not installed")
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        for of_head in ({"_system_config": settings}, {}):
            cluster.add_node(
                num_cpus=n_cpus,
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                **of_head,
            )
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()
