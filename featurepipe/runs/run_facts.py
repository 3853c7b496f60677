"""The typed parts of `run.json`; `featurepipe.runs.run_info` puts them together."""

import math
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from featurepipe.features.store import StoreKey
from featurepipe.splits import SplitSettings


def none_if_nan(figure: Any) -> Any:
    """The figure, or None if it is NaN: JSON has no NaN."""
    return None if isinstance(figure, float) and math.isnan(figure) else figure


Figure = Annotated[float | None, BeforeValidator(none_if_nan)]
"""A number that is None where it could not be measured."""


MAX_FEATURES = 10**7
"""Most features of an image that a run may read."""

Count = Annotated[int, Field(ge=0, lt=2**63)]
Width = Annotated[int, Field(gt=0, le=MAX_FEATURES)]
PlainName = Annotated[str, Field(pattern=r"^[^/\\]+$")]
"""A name that is no path."""


class Facts(BaseModel):
    """A part of `run.json`: read-only, without unknown fields, and without NaN."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, revalidate_instances="always"
    )


class SplitFacts(Facts):
    """The split by which a run was fitted.

    Attributes
    ----------
    name : str
    number : int
        Order of creation in the workspace, from 0.
    series : str
        Name of the splits that belong together.
    settings : SplitSettings
    repeat : int
        Which of the settings' repeats it is, from 0.
    sha256 : str
        Digest of image ids, parts and groups.
    """

    name: PlainName
    number: Count
    series: str
    settings: SplitSettings
    repeat: Count
    sha256: str


class ConfidenceBin(Facts):
    """Answers of similar confidence: how many, how confident on average, how often right."""

    n_images: int
    confidence: float
    accuracy: float


class Reliability(Facts):
    """How well the confidence in the answers to one attribute matches their accuracy."""

    log_loss: Figure
    ece: Figure
    bins: tuple[ConfidenceBin, ...]


class Calibration(Facts):
    """Reliability on out-of-fold training rows before and after calibration, by attribute."""

    uncalibrated: dict[str, Reliability]
    calibrated: dict[str, Reliability]


class Block(Facts):
    """Features of one store that a run reads.

    Attributes
    ----------
    name : str
        Name of the store's features when the run was fitted.
    recipe : StoreKey
        The store's key.
    weights, weights_source : str
        Name of the weights, and where they were.
    n_features : int
        Numbers that the recipe makes of an image.
    """

    name: str
    recipe: StoreKey
    weights: str
    weights_source: str
    n_features: Width


class StoreInput(Facts):
    """A store that a run read or tried, and the digest of the features of its images."""

    name: str
    recipe: StoreKey
    features_sha256: str


class FeatureTrial(Facts):
    """One trial of ``--features auto``; see `featurepipe.models.studies.feature_choice.Trial`."""

    attribute: str
    blocks: tuple[str, ...]
    seen_accuracy: float
    unseen_accuracy: Figure
    chosen: bool


class HeadTrialFacts(Facts):
    """One trial of a head; see `featurepipe.models.studies.head_choice.HeadTrial`."""

    head: str
    seen_accuracy: float
    unseen_accuracy: Figure
    chosen: bool
    ordinary: tuple[str, ...]


class CombinationPointFacts(Facts):
    """See `featurepipe.models.studies.combination_curve.CombinationPoint`."""

    attribute: str
    share: float
    n_combinations: Count
    n_train: Count
    accuracy: float
    low: float
    high: float
    gain: Figure
    margin: Figure


class TunedHead(Facts):
    """What tuning chose for one head; see `featurepipe.models.heads.tuning.fit_tuned_head`."""

    chosen: dict[str, str | float]
    log_loss: Figure
    default_log_loss: Figure


class StartingNetwork(Facts):
    """The backbone from which the training of a network started."""

    backbone: str
    weights: dict[str, Any]
    size_px: int
    pooling: str
    weights_source: str


class NetworkShape(Facts):
    """What is needed to read images with a trained network.

    Attributes
    ----------
    size_px : int
        Height and width of its input.
    outputs : dict of str to int
        Names of its output layers, in the attributes' order, and how many classes each has.
    same : tuple of (float, float) or None
        For `pair`: slope and intercept of the score that two images show the same.
    """

    size_px: Annotated[int, Field(gt=0, le=2**16)]
    outputs: dict[str, Width]
    same: tuple[float, float] | None


class PixelInput(Facts):
    """The pixel cache that a network was trained on, and the digest of its images."""

    recipe: StoreKey
    sha256: str
