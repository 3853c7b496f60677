"""NetworkSettings: which network is trained, and with which values."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from featurepipe.errors import UnknownNameError, UsageError
from featurepipe.models.answers.calibration import AUTO, CALIBRATIONS
from featurepipe.models.answers.thresholds import parse_aim
from featurepipe.models.networks.recipes import NETWORKS, NetworkSpec, Stage, find_network
from featurepipe.models.networks.schedules import SCHEDULES

BRANCHES = ("grey", "rgb")
CLASS_WEIGHTS = ("none", "balanced")
TASKS = ("per-attribute", "multi-label")

Value = TypeVar("Value")

_COLOUR_WORDS = frozenset({"color", "colors", "colour", "colours"})


@dataclass(frozen=True)
class NetworkSettings:
    """The final values of a training.

    `NetworkSettings.of` completes given options with the recipe of a network.

    Attributes
    ----------
    network : str
        A key of `featurepipe.models.networks.recipes.NETWORKS`.
    task : {"per-attribute", "multi-label"}
        A softmax for each exclusive attribute, or a sigmoid for each label.
    n_epochs : int
        Maximum number of epochs of each stage.
    batch_size : int
    stages : tuple of Stage
    branches : dict of str to str
        For `fashionnet`: the chosen branch of an attribute, ``"grey"`` or ``"rgb"``; see
        `branch_of` for the other attributes.
    loss_weights : dict of str to float
        Loss weight of an attribute; the weight of the other attributes is 1.
    class_weight : {"none", "balanced"}
        ``"balanced"`` weights an image by ``n_images / (n_classes n)``, where n images have its
        class.
    positive_pairs : float or None
        For `pair`: target share of pairs that show the same. None for the other networks.
    precision : {"float32", "bfloat16", "float16"}
        Precision of the layers' computations; weights are float32.
    calibrate : {"auto", "sigmoid", "isotonic", "temperature", "none"}
    thresholds : str or None
        As in `featurepipe.models.heads.head_settings.HeadSettings`.
    seed : int
        Seed of initial weights, image order, augmentation, dropout and the validation images.

    Raises
    ------
    UnknownNameError
        If a network, task, schedule, branch, class weight or calibration does not exist.
    UsageError
        If a number is out of range, or the thresholds cannot be read.
    """

    network: str
    task: str
    n_epochs: int
    batch_size: int
    stages: tuple[Stage, ...]
    branches: dict[str, str]
    loss_weights: dict[str, float]
    class_weight: str
    positive_pairs: float | None
    precision: str
    calibrate: str
    thresholds: str | None
    seed: int

    def __post_init__(self) -> None:
        _require_known("network", self.network, NETWORKS)
        _require_known("task", self.task, TASKS)
        _require_known("class weight", self.class_weight, CLASS_WEIGHTS)
        _require_known("calibration", self.calibrate, (AUTO, *CALIBRATIONS))
        for branch in self.branches.values():
            _require_known("branch", branch, BRANCHES)
        for stage in self.stages:
            _require_known("schedule", stage.schedule, SCHEDULES)
        _require_in_range(self)
        if self.thresholds is not None:
            parse_aim(self.thresholds)

    @classmethod
    def of(
        cls,
        network: str,
        *,
        task: str | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        schedule: str | None = None,
        augment: bool | None = None,
        unfreeze: int | None = None,
        branches: Mapping[str, str] | None = None,
        loss_weights: Mapping[str, float] | None = None,
        class_weight: str = "none",
        positive_pairs: float | None = None,
        precision: str = "float32",
        calibrate: str = AUTO,
        thresholds: str | None = None,
        seed: int = 0,
    ) -> "NetworkSettings":
        """Complete the given options with the recipe of the network.

        Parameters
        ----------
        network : str
            Name of the network; case is ignored.
        task, epochs, batch_size, learning_rate, schedule, augment, unfreeze, branches, \
loss_weights, class_weight, positive_pairs, calibrate, thresholds, seed
            As in `featurepipe.train`; None means the recipe's value.
        precision : {"float32", "bfloat16", "float16"}

        Raises
        ------
        UsageError
            As `NetworkSettings`, or if an option does not apply to the network.
        """
        spec = find_network(network)
        require_applicable(spec, "--unfreeze", unfreeze, "has_backbone")
        require_applicable(spec, "--branches", branches, "branches")
        require_applicable(spec, "--positive-pairs", positive_pairs, "pairs")
        _require_at_least("--unfreeze", unfreeze, 1)
        return cls(
            network=spec.name,
            task=_given_or(task, spec.task),
            n_epochs=_given_or(epochs, spec.n_epochs),
            batch_size=_given_or(batch_size, spec.batch_size),
            stages=_complete_stages(spec, learning_rate, schedule, augment, unfreeze),
            branches=dict(branches or {}),
            loss_weights=dict(loss_weights or {}),
            class_weight=class_weight,
            positive_pairs=_given_or(positive_pairs, spec.positive_pairs),
            precision=precision,
            calibrate=calibrate,
            thresholds=thresholds,
            seed=seed,
        )

    @property
    def spec(self) -> NetworkSpec:
        """The network's row in the table."""
        return NETWORKS[self.network]

    @property
    def augments(self) -> bool:
        """Whether training images are augmented in any stage."""
        return any(stage.augments for stage in self.stages)

    @property
    def n_unfrozen_blocks(self) -> int:
        """The most backbone blocks that any stage trains."""
        return max(stage.n_blocks or 0 for stage in self.stages)

    def branch_of(self, attribute: str) -> str:
        """Branch of an attribute: ``"rgb"`` for colours, ``"grey"`` for others, unless chosen."""
        by_name = "rgb" if attribute.lower() in _COLOUR_WORDS else "grey"
        return self.branches.get(attribute, by_name)


def _complete_stages(
    spec: NetworkSpec,
    learning_rate: float | None,
    schedule: str | None,
    augment: bool | None,
    unfreeze: int | None,
) -> tuple[Stage, ...]:
    stages = [
        replace(
            stage,
            learning_rate=_given_or(learning_rate, stage.learning_rate),
            schedule=_given_or(schedule, stage.schedule),
            # A stage that trains only the output layers stays one.
            n_blocks=_given_or(unfreeze, stage.n_blocks) if stage.n_blocks else stage.n_blocks,
        )
        for stage in spec.stages
    ]
    if not _given_or(augment, spec.augments):
        # Without augmentation, the last stage would repeat the one before it.
        stages = [replace(stage, augments=False) for stage in stages if stage.augments]
    return tuple(stages)


def _given_or(given: Value | None, default: Value) -> Value:
    return default if given is None else given


def _require_known(kind: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise UnknownNameError(kind, name, known)


def require_applicable(spec: NetworkSpec, option: str, given: object, needs: str) -> None:
    """Refuse an option that the network would ignore.

    Parameters
    ----------
    spec : NetworkSpec
    option : str
    given : object
        Value of the option; None or empty if it was not given.
    needs : {"has_backbone", "branches", "pairs"}
        What a network needs for the option to apply.

    Raises
    ------
    UsageError
        If the option was given and does not apply.
    """
    if given in (None, "", (), {}, []) or getattr(spec, needs):
        return
    networks = [row.name for row in NETWORKS.values() if getattr(row, needs)]
    raise UsageError(
        f"{option} only applies to {' and '.join(networks)}. Remove it, or use "
        f"`train {networks[0]}`."
    )


def _require_in_range(settings: NetworkSettings) -> None:
    _require_at_least("--epochs", settings.n_epochs, 1)
    _require_at_least("--batch-size", settings.batch_size, 2)
    for attribute, weight in settings.loss_weights.items():
        _require_at_least(f"--loss-weights {attribute}", weight, 0)
    for rate in (stage.learning_rate for stage in settings.stages):
        if not rate > 0:
            raise UsageError(f"--learning-rate is {rate}. Use a number greater than 0.")
    share = settings.positive_pairs
    if share is not None and not 0 <= share <= 1:
        raise UsageError(f"--positive-pairs is {share}. Use a share between 0 and 1.")


def _require_at_least(option: str, value: float | None, least: int) -> None:
    if value is not None and not value >= least:
        raise UsageError(f"{option} is {value}. Use {least} or more.")
