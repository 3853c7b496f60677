"""HeadSettings: which head is fitted, and how."""

from dataclasses import dataclass, replace
from typing import Any, Self

from featurepipe.errors import UnknownNameError
from featurepipe.models.answers.calibration import AUTO, CALIBRATIONS
from featurepipe.models.answers.thresholds import parse_aim
from featurepipe.models.heads.estimators.variances import build_variance_threshold
from featurepipe.models.heads.registry import default_solver, find_head
from featurepipe.predictions import Task

DEFAULT_HEAD = "bagged-sgd"


@dataclass(frozen=True)
class HeadSettings:
    """Which head is fitted, and how.

    `HeadSettings.of` finds the head's default solver.

    Attributes
    ----------
    head : str
        A key of `featurepipe.models.heads.registry.HEADS`.
    solver : str
        One of the head's solvers in `HEADS`.
    task : Task
    calibrate : {"auto", "sigmoid", "isotonic", "temperature", "none"}
        How decision scores become probabilities. ``auto`` uses temperature for exclusive
        classes, and sigmoid for labels of sets.
    variance_threshold : str
        ``"1%"`` of the mean variance, or an absolute variance such as ``"0.01"``.
    tune : bool
        Choose penalty, variance threshold (instead of the one above) and scaling for each
        head on inner folds of the rows it is fitted on. See
        `featurepipe.models.heads.tuning`.
    seed : int
        Random state of folds and heads.
    n_folds : int
        Inner folds, for calibration and selection accuracy.
    thresholds : str or None
        Aim of the thresholds of labels: ``"f1"``, ``"precision=0.9"`` or ``"recall=0.8"``.
        None keeps every threshold at 0.5.

    Raises
    ------
    UsageError
        If a name does not exist, or a threshold cannot be read.
    """

    head: str
    solver: str
    task: Task = Task.PER_ATTRIBUTE
    calibrate: str = AUTO
    variance_threshold: str = "1%"
    tune: bool = False
    seed: int = 0
    n_folds: int = 5
    thresholds: str | None = None

    def __post_init__(self) -> None:
        find_head(self.head, self.solver)
        build_variance_threshold(self.variance_threshold)
        if self.thresholds is not None:
            parse_aim(self.thresholds)
        if self.calibrate not in (AUTO, *CALIBRATIONS):
            raise UnknownNameError("calibration", self.calibrate, (AUTO, *CALIBRATIONS))

    @classmethod
    def of(
        cls,
        head: str = DEFAULT_HEAD,
        *,
        solver: str | None = None,
        task: str = Task.PER_ATTRIBUTE,
        **others: Any,
    ) -> Self:
        """Settings with the head's default solver unless another is named.

        Parameters
        ----------
        head : str
        solver : str, optional
        task : str
            A `Task` or its value.
        **others
            Other attributes of `HeadSettings`.

        Raises
        ------
        UsageError
            If a name does not exist, or a threshold cannot be read.
        """
        if solver is None:
            solver = default_solver(head)
        return cls(head, solver, Task.named(task), **others)

    def with_head(self, head: str) -> Self:
        """The same settings for a head and its default solver, unless it is the head already.

        Parameters
        ----------
        head : str
        """
        return self if head == self.head else replace(self, head=head, solver=default_solver(head))
