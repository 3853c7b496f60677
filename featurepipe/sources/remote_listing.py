"""What fsspec lists below a URL."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote

from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractFileSystem

from featurepipe.sources import patience
from featurepipe.sources.entries import Entry, entry_of
from featurepipe.sources.patience import Patience

Entries = dict[str, Entry]

NOWHERE = Entry()


class RemoteListing:
    """What fsspec lists below a URL. Safe to use from several threads.

    Parameters
    ----------
    fs : AbstractFileSystem
    root : str
        Path of the URL within it.
    is_web : bool
        Whether its paths are quoted, as on the web.
    asker : Patience

    Attributes
    ----------
    asks_each_folder : bool
        Whether fsspec asks for each folder on its own, also where it lists all that is below one.
    """

    def __init__(self, fs: Any, root: str, *, is_web: bool, asker: Patience) -> None:
        self._fs, self._root, self._is_web, self._asker = fs, root, is_web, asker
        self.asks_each_folder = _asks_each_folder(fs)
        # The folder listed last, which may be asked for again, and what is in it.
        self._last: tuple[str | None, Entries] = (None, {})

    def path(self, image_id: str) -> str:
        """The path of an image within the file system.

        Parameters
        ----------
        image_id : str
        """
        name = quote(image_id) if self._is_web else image_id
        return f"{self._root}/{name}" if self._root else name

    def entries_in(self, folder: str) -> Entries:
        """What is in a folder.

        Parameters
        ----------
        folder : str
            Its key; see `walk`.

        Returns
        -------
        dict of str to Entry
            By key; folders have no size.

        Raises
        ------
        OSError
            If it cannot be listed; its text is the reason shown to people.
        """
        last, entries = self._last
        if folder != last:
            entries = self._ask(folder, self._fs.ls)
            self._last = folder, entries
        return entries

    def entries_if_there(self, folder: str) -> Entries:
        """As `entries_in`; empty if the folder is gone, unless all below the URL is.

        Parameters
        ----------
        folder : str

        Raises
        ------
        OSError
            As `entries_in`.
        """
        try:
            return self.entries_in(folder)
        except OSError as error:
            if not isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
                raise
            self._asker.ask(lambda: self._fs.info(self._root))
            return {}

    def files_below(self, folder: str) -> list[str]:
        """All files in and below a folder, where fsspec can list them with one request.

        Parameters
        ----------
        folder : str
            Its key.

        Returns
        -------
        list of str
            Their keys.

        Raises
        ------
        OSError
            As `entries_in`.
        """
        return [key for key in self._ask(folder, self._fs.find) if not key.endswith("/")]

    def _ask(self, folder: str, method: Callable[..., Any]) -> Entries:
        name = folder.removesuffix("/")
        path = self.path(name) if name else self._root

        def ask() -> Entries:
            # It would answer from memory, and keep what it says: a kilobyte a file.
            self._fs.invalidate_cache()
            try:
                found = method(path, detail=True)
            finally:
                self._fs.invalidate_cache()
            entries = {}
            for metadata in found.values() if isinstance(found, dict) else found:
                key = self._key(metadata["name"].rstrip("/"))
                # Some list the folder itself, and a file as a folder that holds it.
                if key == name:
                    continue
                if metadata.get("type") == "directory":
                    entries[f"{key}/"] = NOWHERE
                else:
                    entries[key] = entry_of(metadata)
            return entries

        return self._asker.ask(ask, patience.LISTING_SECONDS)

    def _key(self, path: str) -> str:
        below = path[len(self._root) :].lstrip("/")
        return unquote(below) if self._is_web else below


def _asks_each_folder(fs: Any) -> bool:
    own = getattr(type(fs), "_find", None)
    if own is None:
        return type(fs).find is AbstractFileSystem.find
    return own is AsyncFileSystem._find
