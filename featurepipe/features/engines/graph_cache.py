"""Where the user's cache keeps what is worked out about a backbone once."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from featurepipe.features.headless import HeadlessNetwork
from featurepipe.files import user_cache


def cached_file(folder: str, suffix: str, network: HeadlessNetwork, **others: Any) -> Path:
    """The file of a network and of what else decides it.

    Parameters
    ----------
    folder : str
        In the user's cache.
    suffix : str
    network : HeadlessNetwork
    **others
        What else decides its content, as JSON values.

    Returns
    -------
    Path
        Named by the backbone and a digest of all that decides it.
    """
    decides = network.identity() | {"keras": version("keras")} | others
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
    return user_cache() / folder / f"{network.backbone.name}-{digest}{suffix}"
