"""Engines: what runs a backbone. One file an engine, one small protocol."""

from featurepipe.features.engines.batch_memory import is_out_of_memory, load_with_room
from featurepipe.features.engines.engine_choice import (
    ENGINES,
    PRECISIONS,
    choose_engine,
    choose_precision,
)
from featurepipe.features.engines.open_engine import open_engine
from featurepipe.features.engines.protocol import Engine

__all__ = [
    "ENGINES",
    "PRECISIONS",
    "Engine",
    "choose_engine",
    "choose_precision",
    "is_out_of_memory",
    "load_with_room",
    "open_engine",
]
