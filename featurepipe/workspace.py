"""Paths of a workspace: manifest, stores, splits, runs and reports."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from uuid import uuid4

from featurepipe.errors import NotWritableError, WorkspaceError, WriteError
from featurepipe.files import only_writer, remove_unfinished, replaced_folders, restore_folders
from featurepipe.words import is_utf8


class Workspace:
    """The folder that holds one manifest, its stores, splits, runs and reports.

    Parameters
    ----------
    root : Path or str
        The folder; it is created when something is first written.
    """

    def __init__(self, root: Path | str = ".") -> None:
        self.root = Path(root)
        if self.root.exists() and not self.root.is_dir():
            raise WorkspaceError(f"The workspace {self.root} is a file. Name a folder.")
        # Not every library opens such a path.
        if not is_utf8(str(self.root)):
            raise WorkspaceError(
                f"The name of the workspace {self.root} is not UTF-8. Rename it, or name another "
                "folder with --workspace."
            )

    @property
    def manifest(self) -> Path:
        """The file of images and labels."""
        return self.root / "manifest.parquet"

    @property
    def leaderboard(self) -> Path:
        """The file of the leaderboard."""
        return self.root / "leaderboard.csv"

    @property
    def page(self) -> Path:
        """The page that compares all runs."""
        return self.root / "report.html"

    @property
    def audit(self) -> Path:
        """The file of likely label errors, outliers and duplicates."""
        return self.root / "audit.csv"

    def next_labels(self) -> Path:
        """A file for the images to label next that is not there yet: next.csv, else next-2.csv.

        A person may have corrected those that are there.
        """
        paths = (self.root / f"next{f'-{k}' if k > 1 else ''}.csv" for k in count(1))
        return next(path for path in paths if not path.exists())

    def store(self, name: str) -> Path:
        """The file of the feature store of this name."""
        return self.root / "features" / f"{name}.h5"

    def sharded_store(self, name: str) -> Path:
        """The folder of the store of this name, if it is one of shards."""
        return self.root / "features" / f"{name}.shards"

    def found_duplicates(self, store: str) -> Path:
        """The file that remembers the near-duplicates found with the store of this name."""
        return self.root / "features" / f"{store}-near-duplicates.npz"

    def pixels(self, size_px: int) -> Path:
        """The file of the pixel cache of this size: all images, decoded to squares."""
        return self.root / "pixels" / f"{size_px}.h5"

    def split(self, name: str) -> Path:
        """The file of the split of this name."""
        return self.root / "splits" / f"{name}.json"

    def near_duplicates(self, split: str) -> Path:
        """The file of the near-duplicates across the sides of a split."""
        return self.root / "splits" / f"{split}-near-duplicates.csv"

    def run(self, name: str) -> Path:
        """The folder of the run of this name."""
        return self._runs / name

    def training(self, digest: str) -> Path:
        """The folder for the checkpoints of the training of this digest."""
        return self._runs / f".training-{digest}"

    @property
    def _runs(self) -> Path:
        return self.root / "runs"

    def stores(self) -> list[Path]:
        """Every feature store, by name."""
        found = [self.root.glob(f"features/[!.]*.{suffix}") for suffix in ("h5", "shards")]
        return sorted(chain.from_iterable(found))

    def pixel_caches(self) -> list[Path]:
        """Every pixel cache, by name."""
        return sorted(self.root.glob("pixels/[!.]*.h5"))

    def splits(self) -> list[Path]:
        """Every split, by name."""
        return sorted(self.root.glob("splits/[!.]*.json"))

    def runs(self) -> list[Path]:
        """Every run that is complete, by name."""
        if replaced_folders(self._runs):
            # Another process may be replacing a run right now: then it holds the lock.
            with suppress(WriteError), only_writer(self.root):
                restore_folders(self._runs)
        return sorted(path.parent for path in self._runs.glob("[!.]*/run.json"))

    @contextmanager
    def token(self) -> Iterator[Path]:
        """A new file by which other machines show whether they see the workspace."""
        path = self.root.absolute() / f".token-{uuid4().hex}"
        path.touch()
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock of the workspace, so that one process writes at a time.

        Raises
        ------
        LockedError
            If another process holds it.
        NotWritableError
            If the folder cannot be created or written to.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NotWritableError(
                f"The workspace {self.root} cannot be created ({error.strerror or error}). Name a "
                "folder that you may write to with --workspace."
            ) from error
        with only_writer(self.root):
            remove_unfinished(self.root)
            remove_unfinished(self.root / "splits")
            restore_folders(self._runs)
            yield
