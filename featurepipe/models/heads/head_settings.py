"""HeadSettings: what is fitted, and how."""

from dataclasses import dataclass

from featurepipe.errors import UnknownNameError
from featurepipe.models.answers.calibration import AUTO, CALIBRATIONS
from featurepipe.models.answers.thresholds import parse_aim
from featurepipe.models.heads.registry import HEADS, build_variance_threshold, find_head
from featurepipe.predictions import TASKS


@dataclass(frozen=True)
class HeadSettings:
    """What is fitted, and how.

    Attributes
    ----------
    head : str
        A key of `featurepipe.models.heads.registry.HEADS`.
    solver : str or None
        What fits the head, of those in `HEADS`; None becomes its usual one.
    task : {"per-attribute", "multi-label", "joint"}
        One head an attribute, one OneVsRest head over all labels, or one head over
        the combinations of classes that training images have.
    calibrate : {"auto", "sigmoid", "isotonic", "temperature", "none"}
        How decision scores become probabilities; ``auto`` is temperature for exclusive
        classes, and sigmoid for labels of sets.
    variance_threshold : str
        ``"1%"`` of the mean variance, or an absolute variance such as ``"0.01"``.
    tune : bool
        Choose penalty, variance threshold (in place of the one above) and scaling for each
        head on folds of the rows it is fitted on; see `featurepipe.models.heads.tuning`.
    seed : int
        Random state of folds and heads.
    n_folds : int
        Inner folds; what calibrates and selects is measured on these.
    thresholds : str or None
        ``"f1"``, ``"precision=0.9"`` or ``"recall=0.8"``: what the thresholds of labels are
        chosen for; None: 0.5 each.

    Raises
    ------
    UsageError
        If a name does not exist or the threshold cannot be read.
    """

    head: str = "bagged-sgd"
    solver: str | None = None
    task: str = "per-attribute"
    calibrate: str = AUTO
    variance_threshold: str = "1%"
    tune: bool = False
    seed: int = 0
    n_folds: int = 5
    thresholds: str | None = None

    def __post_init__(self) -> None:
        find_head(self.head, self.solver)
        object.__setattr__(self, "solver", self.solver or next(iter(HEADS[self.head])))
        build_variance_threshold(self.variance_threshold)
        if self.thresholds is not None:
            parse_aim(self.thresholds)
        if self.task not in TASKS:
            raise UnknownNameError("task", self.task, TASKS)
        if self.calibrate not in (AUTO, *CALIBRATIONS):
            raise UnknownNameError("calibration", self.calibrate, (AUTO, *CALIBRATIONS))
