"""The feature store: one HDF5 file of features; no other room knows its layout."""

from featurepipe.features.store.damage import open_damaged
from featurepipe.features.store.layout import DONE, PENDING, REFUSED, Rows
from featurepipe.features.store.rewriting import grow, rewrite
from featurepipe.features.store.store import FeatureStore

__all__ = [
    "DONE",
    "PENDING",
    "REFUSED",
    "FeatureStore",
    "Rows",
    "grow",
    "open_damaged",
    "rewrite",
]
