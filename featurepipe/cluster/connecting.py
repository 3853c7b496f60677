"""Joining a Ray cluster: one that is named, one that runs on this machine, or a new one here."""

import logging
import os
import platform
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import featurepipe
from featurepipe.errors import ClusterError, UsageError
from featurepipe.words import one_line

EXECUTORS = ("local", "ray")

_PATIENCE_S = 10
_DEFAULT_PORT = 6379
_INSTALL = "Run: pip install 'featurepipe[ray]'"


def require_executor(executor: str, ray_address: str | None) -> None:
    """Stop at an unknown executor, or an address that nothing would use.

    Parameters
    ----------
    executor : {"local", "ray"}
    ray_address : str or None

    Raises
    ------
    UsageError
    """
    if executor not in EXECUTORS:
        raise UsageError(f"There is no executor {executor!r}. Use one of: {', '.join(EXECUTORS)}.")
    if ray_address is not None and executor != "ray":
        raise UsageError("--ray-address requires --executor ray. Add it, or omit the address.")


@dataclass(frozen=True)
class Node:
    """A living node of the cluster.

    Attributes
    ----------
    node_id : str
        Ray's name of it.
    host : str
        The machine; several nodes of a test may share one.
    n_cpus, n_gpus : int
        What it offers.
    """

    node_id: str
    host: str
    n_cpus: int
    n_gpus: int

    @property
    def title(self) -> str:
        """How messages name it: the machine, and how its id begins."""
        return f"{self.host} ({self.node_id[:8]})"


@contextmanager
def connected(address: str | None = None) -> Iterator[None]:
    """Be a driver of a Ray cluster.

    Parameters
    ----------
    address : str, optional
        ``HOST:PORT`` of the head, or ``ray://HOST:PORT``. Default: that in ``RAY_ADDRESS``, else
        the cluster that was started on this machine, else a new one of this machine alone.

    Raises
    ------
    ClusterError
        If Ray is not installed, the cluster cannot be reached, or a node has another version of
        Ray, Python or featurepipe.
    """
    ray = import_ray()
    if ray.is_initialized():
        # A caller's own connection, in Python.
        _require_same_versions(ray)
        yield
        return
    named = address or os.environ.get("RAY_ADDRESS")
    if named:
        _require_answer(named)
    try:
        ray.init(
            address=named,
            log_to_driver=False,
            logging_level=logging.ERROR,
            include_dashboard=None if named else False,
        )
    except Exception as error:
        raise ClusterError(
            f"Cannot join the Ray cluster {named or 'of this machine'}: {one_line(error)} Check "
            "that it runs (ray status) with the same versions of Ray and Python."
        ) from error
    try:
        _require_same_versions(ray)
        yield
    finally:
        ray.shutdown()


def import_ray() -> Any:
    """The package `ray`.

    Raises
    ------
    ClusterError
        If it is not installed.
    """
    # Ray reports every start to its makers otherwise.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ClusterError(f"--executor ray needs Ray, which is not installed. {_INSTALL}") from (
            error
        )
    return ray


def living_nodes() -> list[Node]:
    """The nodes of the cluster that are alive, by machine and id."""
    ray = import_ray()
    nodes = [
        Node(
            node["NodeID"],
            node["NodeManagerHostname"],
            int(node["Resources"].get("CPU", 0)),
            int(node["Resources"].get("GPU", 0)),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]
    return sorted(nodes, key=lambda node: (node.host, node.node_id))


def _require_answer(address: str) -> None:
    """Stop if nothing listens at an address: Ray itself would try for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if address in ("auto", "local"):
        return
    if not host:
        host, port = address, str(_DEFAULT_PORT)
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE_S).close()
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"No Ray cluster answers at {address} ({one_line(error)}). Start one with "
            "ray start --head, or correct --ray-address."
        ) from error


def _require_same_versions(ray: Any) -> None:
    """Stop if a node has another Python or featurepipe: Ray compares its own version only."""

    # Defined here, so that Ray sends its code: a node may lack this module.
    def look() -> tuple[str, str]:
        import platform
        from importlib import metadata

        try:
            return platform.python_version(), metadata.version("featurepipe")
        except metadata.PackageNotFoundError:
            return platform.python_version(), ""

    asked = ray.remote(num_cpus=0, max_retries=1)(look)
    nodes = living_nodes()
    found = ray.get([asked.options(**on_node(node)).remote() for node in nodes])
    own = platform.python_version(), featurepipe.__version__
    for node, (python, package) in zip(nodes, found, strict=True):
        if not package:
            raise ClusterError(
                f"featurepipe is not installed on node {node.title}. Install version "
                f"{own[1]} there: it computes the features where the images are decoded."
            )
        for name, theirs, ours in (
            ("Python", _minor(python), _minor(own[0])),
            ("featurepipe", package, own[1]),
        ):
            if theirs != ours:
                raise ClusterError(
                    f"Node {node.title} has {name} {theirs}, and this machine {ours}. Install the "
                    "same version on all."
                )


def on_node(node: Node) -> dict[str, Any]:
    """Options of a Ray task or actor that may run on one node only."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node.node_id, soft=False)}


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
