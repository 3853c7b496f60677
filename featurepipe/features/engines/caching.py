"""Where the user's cache keeps what is worked out about a backbone once."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from featurepipe.features.backbones import BackboneSpec
from featurepipe.features.weights import Weights
from featurepipe.files import user_cache


def cached_file(
    folder: str,
    suffix: str,
    backbone: BackboneSpec,
    weights: Weights,
    *,
    size: int,
    pooling: str,
    **others: Any,
) -> Path:
    """The file of a network and of what else decides it.

    Parameters
    ----------
    folder : str
        In the user's cache.
    suffix : str
    backbone : BackboneSpec
    weights : Weights
    size : int
    pooling : str
    **others
        What else decides its content, as JSON values.

    Returns
    -------
    Path
        Named by the backbone and a digest of all that decides it.
    """
    decides = {
        "backbone": backbone.name,
        "weights": weights.identity(),
        "size_px": size,
        "pooling": pooling,
        "keras": version("keras"),
        **others,
    }
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
    return user_cache() / folder / f"{backbone.name}-{digest}{suffix}"
