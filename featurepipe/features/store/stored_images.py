"""StoredImages: images of a store by id."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from featurepipe.features.store.layout import Rows


@dataclass(frozen=True)
class StoredImages:
    """Some images of a store.

    Attributes
    ----------
    ids : ndarray of shape (n_images,), bytes in UTF-8, sorted
        As Python strings, a million of them would take 80 MB.
    rows : ndarray of shape (n_images,), intp
        Their rows in the store.
    """

    ids: NDArray[np.bytes_]
    rows: Rows

    @classmethod
    def of(cls, raw_ids: NDArray[np.bytes_], rows: Rows) -> Self:
        """The images of some rows.

        Parameters
        ----------
        raw_ids : ndarray of shape (n_rows_of_store,), bytes in UTF-8
            Those of all rows, in any order.
        rows : ndarray of shape (n_images,), intp
        """
        rows = rows[np.argsort(raw_ids[rows], kind="stable")]
        return cls(raw_ids[rows], rows)

    def take(self, places: NDArray[np.intp]) -> "StoredImages":
        """Some of the images.

        Parameters
        ----------
        places : ndarray of shape (n_taken,), intp, ascending
        """
        return StoredImages(self.ids[places], self.rows[places])

    def __len__(self) -> int:
        return len(self.rows)

    def places(self, ids: Collection[str] | NDArray[Any]) -> NDArray[np.intp]:
        """Where images are among these, -1 for those that are not.

        Parameters
        ----------
        ids : collection of str

        Returns
        -------
        ndarray of shape (len(ids),), intp
        """
        # A longer id is cut, but not to one that is here. A path may be no UTF-8, which no id is.
        dtype = np.dtype((np.bytes_, self.ids.dtype.itemsize + 1))
        raw = (image_id.encode(errors="surrogatepass") for image_id in ids)
        wanted = np.fromiter(raw, dtype, len(ids))
        places = np.searchsorted(self.ids, wanted)
        inside = np.flatnonzero(places < len(self))
        is_there = np.zeros(len(ids), bool)
        is_there[inside] = self.ids[places[inside]] == wanted[inside]
        return np.where(is_there, places, -1)
