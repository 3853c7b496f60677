"""Executor: where fits and trainings run, this machine or the nodes of a Ray cluster."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
    def joined(self, home: Workspace) -> Iterator[None]:
        """Join the cluster, if there is one.

        Parameters
        ----------
        home : Workspace
            Its lock must be held.

        Raises
        ------
        ClusterError
            If the cluster cannot be used, or a node does not see the workspace.
        """
        if self.is_local:
            yield
            return
        with connected(self.ray_address):
            with home.token() as token:
                require_seen(token)
            yield

    def spread(self) -> AbstractContextManager[None]:
        """Let `featurepipe.cluster.spreading.call_each` use the cluster, if there is one."""
        return nullcontext() if self.is_local else spread()
