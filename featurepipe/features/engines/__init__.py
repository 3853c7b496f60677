"""Engines: what runs a backbone. One file an engine, one small protocol."""

from featurepipe.features.engines.choosing import (
    ENGINES,
    PRECISIONS,
    choose_engine,
    choose_precision,
)
from featurepipe.features.engines.memory import is_out_of_memory, load_with_room
from featurepipe.features.engines.opening import open_engine
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
