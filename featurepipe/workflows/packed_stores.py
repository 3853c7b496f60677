"""Several stores of the same options -> one store of all their images."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from featurepipe.errors import StoreError, StoreMismatchError
from featurepipe.features.engines import probes
from featurepipe.features.store import FeatureStore, choose_rows, write_packed


def pack_stores(paths: Sequence[Path], target: Path) -> int:
    """Write a store with all images of several stores; of each, the first features that there are.

    Parameters
    ----------
    paths : sequence of Path
    target : Path
        A file that is not there yet.

    Returns
    -------
    int
        Images that are pending, and left out.

    Raises
    ------
    StoreError
        If no image has features, or a store is damaged or a pixel cache.
    StoreMismatchError
        If the stores have different features.
    """
    with ExitStack() as opened:
        stores = [opened.enter_context(FeatureStore.open(path)) for path in paths]
        require_features(stores[0])
        for store in stores[1:]:
            _require_same_features(stores[0], store)
        chosen = choose_rows(stores)
        if not chosen.ids:
            raise StoreError(f"{paths[0]} has no features yet. Finish it: featurepipe extract")
        write_packed(stores, chosen, target)
    return chosen.n_pending


def require_features(store: FeatureStore) -> None:
    """Stop if a store holds pixels, not features.

    Raises
    ------
    StoreError
    """
    if store.holds_pixels:
        raise StoreError(
            f"{store.path} is a pixel cache: it holds images of {store.key.size_px} px and no "
            "features. Name a feature store, or make one: featurepipe extract"
        )


def _require_same_features(first: FeatureStore, other: FeatureStore) -> None:
    """Stop if the software of two stores of the same options computes different features."""
    first.require_key(other.key)
    precision = first.key.precision
    distance = probes.distance(other.probe, first.probe, precision)
    if not distance <= probes.tolerance(precision):
        raise StoreMismatchError(
            f"{first.path} and {other.path} were made by different software, which computes "
            f"different features (distance {distance:.1e} on generated pictures). Extract one of "
            "them again."
        )
