"""NetworkSettings: what is trained, and how."""

from dataclasses import dataclass, field, replace

from featurepipe.errors import UnknownNameError, UsageError
from featurepipe.models.answers.calibration import AUTO, CALIBRATIONS
from featurepipe.models.answers.thresholds import parse_aim
from featurepipe.models.networks.recipes import NetworkSpec, Stage, find_network
from featurepipe.models.networks.schedules import SCHEDULES

BRANCHES = ("grey", "rgb")
CLASS_WEIGHTS = ("none", "balanced")
TASKS = ("per-attribute", "multi-label")

_COLOUR_WORDS = frozenset({"color", "colors", "colour", "colours"})


@dataclass(frozen=True)
class NetworkSettings:
    """What is trained, and how; what is left out stands for what the network's recipe has.

    Attributes
    ----------
    network : str
        A key of `featurepipe.models.networks.recipes.NETWORKS`.
    task : {"per-attribute", "multi-label"}
        A softmax for each exclusive attribute, or a sigmoid for each label.
    size_px : int or None
        Side of the pictures; None of networks with a backbone: the backbone's.
    n_epochs : int
        Epochs of each stage, at most.
    batch_size : int
    learning_rate : float or None
        Of every stage, at its beginning.
    schedule : str or None
        Of every stage; see `featurepipe.models.networks.schedules`.
    augments : bool or None
        Whether images are changed at random.
    n_blocks : int or None
        How many of the backbone's last blocks are trained in the stages after the first.
    branches : dict of str to str
        Of `fashionnet`: the branch of an attribute, ``"grey"`` or ``"rgb"``; without, attributes
        called color or colour have ``"rgb"`` and others ``"grey"``.
    loss_weights : dict of str to float
        Weights of the attributes' losses; 1 unless said.
    class_weight : {"none", "balanced"}
        ``"balanced"``: images of a class of n images weigh ``n_images / (n_classes n)``.
    positive_pairs : float
        Of `pair`: share of pairs that show the same, where there are images enough.
    precision : {"float32", "bfloat16", "float16"}
        In which layers compute; weights are float32.
    calibrate : {"auto", "sigmoid", "isotonic", "temperature", "none"}
    thresholds : str or None
        As in `featurepipe.models.heads.head_settings.HeadSettings`.
    seed : int
        Of weights, order of images, augmentation, dropout and the validation part.

    Raises
    ------
    UsageError
        If a name does not exist, or an option is of another network.
    """

    network: str
    task: str = ""
    size_px: int | None = None
    n_epochs: int = 0
    batch_size: int = 0
    learning_rate: float | None = None
    schedule: str | None = None
    augments: bool | None = None
    n_blocks: int | None = None
    branches: dict[str, str] = field(default_factory=dict)
    loss_weights: dict[str, float] = field(default_factory=dict)
    class_weight: str = "none"
    positive_pairs: float | None = None
    precision: str = "float32"
    calibrate: str = AUTO
    thresholds: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        spec = find_network(self.network)
        usual = {
            "network": spec.name,
            "task": self.task or spec.task,
            "size_px": self.size_px or spec.size_px,
            "n_epochs": self.n_epochs or spec.n_epochs,
            "batch_size": self.batch_size or spec.batch_size,
            "augments": spec.augments if self.augments is None else self.augments,
        }
        for name, value in usual.items():
            object.__setattr__(self, name, value)
        _require_known("task", self.task, TASKS)
        _require_known("class weight", self.class_weight, CLASS_WEIGHTS)
        _require_known("calibration", self.calibrate, (AUTO, *CALIBRATIONS))
        if self.schedule is not None:
            _require_known("schedule", self.schedule, SCHEDULES)
        if self.thresholds is not None:
            parse_aim(self.thresholds)
        for branch in self.branches.values():
            _require_known("branch", branch, BRANCHES)
        _require_own_options(self, spec)

    @property
    def spec(self) -> NetworkSpec:
        """The network."""
        return find_network(self.network)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of the training, with what was said in place of what the recipe has."""
        stages = [self._settle(stage) for stage in self.spec.stages]
        if not self.augments:
            # Without augmentation the last stage would be the one before it again.
            stages = [stage for stage in stages if stage.augments]
            stages = [replace(stage, augments=False) for stage in stages]
        return tuple(stages)

    def _settle(self, stage: Stage) -> Stage:
        # The first stage trains no block, and a network without a backbone has none.
        n_blocks = self.n_blocks if stage.n_blocks and self.n_blocks else stage.n_blocks
        return replace(
            stage,
            learning_rate=self.learning_rate or stage.learning_rate,
            schedule=self.schedule or stage.schedule,
            n_blocks=n_blocks,
        )

    def branch_of(self, attribute: str) -> str:
        """What the branch of an attribute is shown: ``"grey"`` or ``"rgb"``."""
        usual = "rgb" if attribute.lower() in _COLOUR_WORDS else "grey"
        return self.branches.get(attribute, usual)


def _require_known(kind: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise UnknownNameError(kind, name, known)


def _require_own_options(settings: NetworkSettings, spec: NetworkSpec) -> None:
    """Stop at options that the network has no use for."""
    given = {
        "--unfreeze": (settings.n_blocks is not None, spec.has_backbone, "finetune and pair"),
        "--branches": (bool(settings.branches), spec.branches, "fashionnet"),
        "--positive-pairs": (settings.positive_pairs is not None, spec.pairs, "pair"),
    }
    for option, (is_given, applies, networks) in given.items():
        if is_given and not applies:
            raise UsageError(
                f"{option} is of {networks}, and {spec.name} has nothing of the kind. Leave it out."
            )
