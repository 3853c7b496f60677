"""Engines: what runs a backbone. One file per engine, one small protocol."""

from featurepipe.features.engines.batch_memory import is_out_of_memory, load_with_room
from featurepipe.features.engines.engine_choice import ENGINES, choose_engine
from featurepipe.features.engines.open_engine import open_engine
from featurepipe.features.engines.precision import (
    PRECISIONS,
    feature_precision,
    require_precision,
    training_precision,
)
from featurepipe.features.engines.protocol import Engine

__all__ = [
    "ENGINES",
    "PRECISIONS",
    "Engine",
    "choose_engine",
    "feature_precision",
    "is_out_of_memory",
    "load_with_room",
    "open_engine",
    "require_precision",
    "training_precision",
]
