"""Executor: where fits and trainings run, this machine or the nodes of a Ray cluster."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from featurepipe.cluster.connecting import connected, require_executor, require_seen
from featurepipe.cluster.spreading import spread
from featurepipe.workspace import Workspace


@dataclass(frozen=True)
class Executor:
    """The options ``--executor`` and ``--ray-address``.

    Attributes
    ----------
    name : {"local", "ray"}
    ray_address : str or None
        See `featurepipe.cluster.connecting.connected`.

    Raises
    ------
    UsageError
        If there is no such executor, or it has no use for an address.
    """

    name: str = "local"
    ray_address: str | None = None

    def __post_init__(self) -> None:
        require_executor(self.name, self.ray_address)

    @property
    def is_local(self) -> bool:
        """Whether nothing but this machine is used."""
        return self.name == "local"

    def workspace(self, root: Path | str) -> Workspace:
        """A workspace by a path that the processes of other machines can use.

        Parameters
        ----------
        root : Path or str
        """
        return Workspace(root if self.is_local else Path(root).absolute())

    @contextmanager
    def joined(self, home: Workspace, *libraries: str) -> Iterator[None]:
        """Let `featurepipe.cluster.spreading.call_each` use the cluster, if there is one.

        Parameters
        ----------
        home : Workspace
            Its lock must be held.
        *libraries : str
            Distributions that decide the results.

        Raises
        ------
        ClusterError
            If the cluster cannot be used, a node has other versions, or does not see the workspace.
        """
        if self.is_local:
            yield
            return
        with connected(self.ray_address, *libraries), spread():
            with home.token() as token:
                require_seen(token, f"the workspace {home.root}")
            yield
