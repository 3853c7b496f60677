"""Extraction: stores are brought up to date with some images, in one pass."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from featurepipe.features.extraction.lanes import Lane
from featurepipe.features.extraction.loading import ImageLoader
from featurepipe.features.extraction.ready_stores import ReadyStore, RowMaker, open_stores
from featurepipe.features.extraction.single_pass import run_pass
from featurepipe.features.extraction.store_update import (
    Extraction,
    StoreUpdate,
    require_readable_images,
)
from featurepipe.features.extraction.views import find_view
from featurepipe.progress import SilentCount
from featurepipe.sources import ImageSource


def extract_features(
    makers: Mapping[Path, RowMaker],
    source: ImageSource,
    ids: Sequence[str],
    *,
    batch_size: int | None = None,
    retry_refused: bool = False,
    rehash: bool = False,
) -> list[Extraction]:
    """Open stores, and bring them up to date with some images.

    Parameters
    ----------
    makers : mapping of Path to RowMaker
        What makes the rows of each store; all decode alike.
    source, ids, retry_refused, rehash
        As in `update_stores`.
    batch_size : int, optional
        As in `open_stores`.

    Returns
    -------
    list of Extraction
        One for each store, in their order.

    Raises
    ------
    FeaturepipeError
        As `open_stores`, `update_stores` and `require_readable_images`.
    """
    with open_stores(makers, ids, batch_size=batch_size) as ready:
        done = update_stores(ready, source, ids, retry_refused=retry_refused, rehash=rehash)
    require_readable_images(done)
    return done


def update_stores(
    ready: Sequence[ReadyStore],
    source: ImageSource,
    ids: Sequence[str],
    *,
    retry_refused: bool = False,
    rehash: bool = False,
    progress: SilentCount | None = None,
) -> list[Extraction]:
    """Bring open stores up to date with some images, in one pass.

    Only images that are new, changed, or left pending are embedded. After a kill at any
    moment the next call continues from there.

    Parameters
    ----------
    ready : sequence of ReadyStore
        Stores that all decode alike.
    source : ImageSource
    ids : sequence of str
        Image ids, sorted.
    retry_refused : bool
        Whether to try again images that were refused and have not changed.
    rehash : bool
        Whether to read all images, and not trust their size and modification time.
    progress : SilentCount, optional
        Default: a bar.

    Returns
    -------
    list of Extraction
        One for each store, in their order.

    Raises
    ------
    StoreMismatchError
        If this machine computes other features than a store holds.
    """
    (fast_decode,) = {one.maker.fast_decode for one in ready}
    stamps = source.stamps(ids)
    updates = [StoreUpdate(one.store, ids, stamps) for one in ready]
    stale = [update.stale(retry_refused=retry_refused, rehash=rehash) for update in updates]
    lanes = [
        Lane(
            one.maker.title,
            one.maker.framing,
            find_view(one.maker.view),
            to_look_at,
            one,
            update,
        )
        for one, to_look_at, update in zip(ready, stale, updates, strict=True)
    ]
    for one, to_look_at in zip(ready, stale, strict=True):
        if to_look_at:
            one.store.begin_writing()
    run_pass(ImageLoader(source, fast_decode=fast_decode), ids, lanes, progress)
    done = [update.summarise(lane.stages) for update, lane in zip(updates, lanes, strict=True)]
    for one in ready:
        one.complete()
    return done
