"""The feature store: one HDF5 file of features; no other room knows its layout."""

from featurepipe.features.store.healing import StoreFile
from featurepipe.features.store.key import StoreKey, WeightsKey
from featurepipe.features.store.layout import (
    DONE,
    PENDING,
    REFUSED,
    Rows,
    features_dtype,
    require_room,
    room_needed,
)
from featurepipe.features.store.packing import choose_rows, write_packed
from featurepipe.features.store.shards import SHARDS_FILE, SHARDS_SUFFIX
from featurepipe.features.store.store import FeatureStore
from featurepipe.features.store.stored_images import StoredImages

__all__ = [
    "DONE",
    "PENDING",
    "REFUSED",
    "SHARDS_FILE",
    "SHARDS_SUFFIX",
    "FeatureStore",
    "Rows",
    "StoreFile",
    "StoreKey",
    "StoredImages",
    "WeightsKey",
    "choose_rows",
    "features_dtype",
    "require_room",
    "room_needed",
    "write_packed",
]
