"""Joining a Ray cluster: one that is named, one that runs on this machine, or a new one here."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import featurepipe
from featurepipe.errors import ClusterError, UsageError
from featurepipe.words import one_line

EXECUTORS = ("local", "ray")

_PATIENCE_S = 10
_DEFAULT_PORT = 6379
_INSTALL = "Run: pip install 'featurepipe[ray]'"

_Subject = TypeVar("_Subject")
_Found = TypeVar("_Found")


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
def connected(address: str | None = None, *libraries: str) -> Iterator[None]:
    """Be a driver of a Ray cluster.

    Parameters
    ----------
    address : str, optional
        ``HOST:PORT`` of the head, or ``ray://HOST:PORT``. Default: that in ``RAY_ADDRESS``, else
        the cluster that was started on this machine, else a new one of this machine alone.
    *libraries : str
        Distributions of which all nodes must have the version of this machine.

    Raises
    ------
    ClusterError
        If Ray is not installed, the cluster cannot be reached, or a node has another version of
        Ray, Python, featurepipe or one of the libraries.
    """
    ray = import_ray()
    if ray.is_initialized():
        # A caller's own connection, in Python.
        _require_same_versions(ray, libraries)
        yield
        return
    named = address or os.environ.get("RAY_ADDRESS")
    if named:
        _require_answer(named)
    terminate = signal.getsignal(signal.SIGTERM)
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
    if terminate is not None and threading.current_thread() is threading.main_thread():
        # Ray's own answer to SIGTERM ends the process with a stack of C++.
        signal.signal(signal.SIGTERM, terminate)
    try:
        _require_same_versions(ray, libraries)
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


def head_answers() -> bool:
    """Whether the head of the cluster still listens."""
    ray = import_ray()
    if ray.util.client.ray.is_connected():
        # Ray's client asks for itself.
        return True
    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE_S).close()
    except OSError:
        return False
    return True


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


def _require_same_versions(ray: Any, libraries: Sequence[str]) -> None:
    """Stop if a node has other versions than this machine: Ray compares its own only."""

    # Defined here, so that Ray sends its code: a node may lack this module.
    def look(names: Sequence[str]) -> dict[str, str]:
        import platform
        from importlib import metadata

        found = {"Python": ".".join(platform.python_version_tuple()[:2])}
        for name in names:
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                found[name] = ""
        return found

    names = ["featurepipe", *libraries]
    own = look(names) | {"featurepipe": featurepipe.__version__}
    for node, found in _asked(ray, look, names, living_nodes()):
        for name, ours in own.items():
            if found[name] != ours:
                has = f"has {name} {found[name]}" if found[name] else f"does not have {name}"
                raise ClusterError(
                    f"Node {node.title} {has}, and this machine has "
                    f"{ours or 'none'}. Install the same version on all."
                )


def require_seen(path: Path, what: str, sha256: str = "") -> None:
    """Stop if a node that computes does not see a file.

    Parameters
    ----------
    path : Path
        Absolute.
    what : str
        What is not seen then, with its path.
    sha256 : str
        SHA-256 of the file in hexadecimal, if that is compared.

    Raises
    ------
    ClusterError
        With the name of the node.
    """

    def look(path: Path) -> str:
        import hashlib

        try:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return ""

    nodes = [node for node in living_nodes() if node.n_cpus]
    for node, found in _asked(import_ray(), look, path, nodes):
        if not found or (sha256 and found != sha256):
            sees = "sees another file for" if found else "does not see"
            raise ClusterError(
                f"Node {node.title} {sees} {what}. Put it on storage that all nodes see under "
                "this path."
            )


def _asked(
    ray: Any, look: Callable[[_Subject], _Found], subject: _Subject, nodes: Sequence[Node]
) -> list[tuple[Node, _Found]]:
    """What each node finds."""
    asked = ray.remote(num_cpus=0, max_retries=1)(look)
    found = ray.get([asked.options(**on_node(node)).remote(subject) for node in nodes])
    return list(zip(nodes, found, strict=True))


def on_node(node: Node) -> dict[str, Any]:
    """Options of a Ray task or actor that may run on one node only."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node.node_id, soft=False)}
