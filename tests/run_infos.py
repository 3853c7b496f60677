"""What runs are, for tests that need no fit."""

import json
from dataclasses import replace

from featurepipe.features.store.key import StoreKey, WeightsKey
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.networks.network_settings import NetworkSettings
from featurepipe.reports.board import Costs
from featurepipe.runs.run_facts import (
    Block,
    Calibration,
    NetworkShape,
    PixelInput,
    Reliability,
    SplitFacts,
    StoreInput,
)
from featurepipe.runs.run_files import RUN_FILE, file_digests
from featurepipe.runs.run_info import HeadRunInfo, NetworkRunInfo
from featurepipe.splits import SplitSettings

RELIABLE = Reliability(log_loss=0.5, ece=0.1, bins=())
RECIPE = StoreKey(
    backbone="xception",
    weights=WeightsKey("imagenet", sha256="12" * 32),
    size_px=299,
    pooling="avg",
    view="rgb",
    decoding="full",
    resize="pillow-bilinear",
    preprocessing="tf",
    precision="float32",
)
PIXELS = replace(
    RECIPE, backbone="pixels", weights=WeightsKey("none"), size_px=32, precision="uint8"
)


def _common(attributes=("color",), **changes):
    every = [*attributes, "all"]
    facts = {
        "digest": "0123456789abcdef",
        "family": "fedcba9876543210",
        "attributes": attributes,
        "backbone": dict.fromkeys(every, "xception"),
        "view": dict.fromkeys(every, "rgb"),
        "weights": dict.fromkeys(every, "imagenet"),
        "n_train": dict.fromkeys(every, 60),
        "selection_accuracy": dict.fromkeys(every, 0.75),
        "reliability": Calibration(
            uncalibrated=dict.fromkeys(attributes, RELIABLE),
            calibrated=dict.fromkeys(attributes, RELIABLE),
        ),
        "split": SplitFacts(
            name="test20-seed0",
            number=0,
            series="test20-seed0",
            settings=SplitSettings(),
            repeat=0,
            sha256="ab" * 32,
        ),
        "costs": Costs(extract_images_per_s=100.0, fit_s=2.5, predict_ms_per_image=10.0),
        "versions": {"featurepipe": "0.1.0"},
        "machine": "Linux-x86_64",
    }
    return facts | changes


def head_info(attributes=("color",), **changes):
    """A run of heads that read the features of one store."""
    facts = {
        "settings": HeadSettings.of(head="logistic"),
        "features": dict.fromkeys(attributes, ("xception:rgb",)),
        "blocks": (
            Block(
                name="xception:rgb",
                recipe=RECIPE,
                weights="imagenet",
                weights_source="here",
                n_features=8,
            ),
        ),
        "stores": (StoreInput(name="xception:rgb", recipe=RECIPE, features_sha256="cd" * 32),),
        "objective": None,
        "feature_trials": (),
        "head_trials": (),
        "memory_bytes": None,
        "chunk_rows": None,
        "tuned": None,
    }
    return HeadRunInfo(**_common(attributes, **facts | changes))


def network_info(attributes=("color",), **changes):
    """A network that began from random weights."""
    facts = {
        "settings": NetworkSettings.of("smallervggnet", task="per-attribute"),
        "begins_from": None,
        "network": NetworkShape(size_px=32, outputs=dict.fromkeys(attributes, 3), same=None),
        "pixels": PixelInput(recipe=PIXELS, sha256="ef" * 32),
        "n_validation": 8,
        "best_epoch": 2,
        "batch_size": 16,
        "ended_by": "",
        "costs": Costs(
            extract_images_per_s=None,
            fit_s=30.0,
            predict_ms_per_image=4.0,
            n_parameters=1000,
            epochs=3,
            peak_memory_bytes=10**9,
        ),
    }
    return NetworkRunInfo(**_common(attributes, **facts | changes))


def sign(folder):
    """Give the run.json of a folder the digests of its present files, as a forger would."""
    content = json.loads((folder / RUN_FILE).read_text())
    content["files"] = file_digests(folder)
    (folder / RUN_FILE).write_text(json.dumps(content))
