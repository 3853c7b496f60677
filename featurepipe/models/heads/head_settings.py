"""HeadSettings: which head is fitted, and how."""

from dataclasses import dataclass, fields, replace
from typing import Any, Self

from sklearn.base import BaseEstimator

from featurepipe.errors import UnknownNameError, UsageError
from featurepipe.models.answers.calibration import AUTO, CALIBRATIONS
from featurepipe.models.answers.thresholds import parse_aim
from featurepipe.models.heads.estimators.variances import build_variance_threshold
from featurepipe.models.heads.own_head import OwnHead, title_of
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
        A key of `featurepipe.models.heads.registry.HEADS`, or the class of `own`.
    solver : str or None
        One of the head's solvers in `HEADS`; None for a head of one's own.
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
    own : OwnHead or None
        The estimator of a head of one's own.

    Raises
    ------
    UsageError
        If a name does not exist, a threshold cannot be read, or a head of one's own has a solver
        or is to be tuned.
    """

    head: str
    solver: str | None
    task: Task = Task.PER_ATTRIBUTE
    calibrate: str = AUTO
    variance_threshold: str = "1%"
    tune: bool = False
    seed: int = 0
    n_folds: int = 5
    thresholds: str | None = None
    own: OwnHead | None = None

    def __post_init__(self) -> None:
        if self.own is None:
            find_head(self.head, self.solver)
        else:
            self._require_usable_with_own()
        build_variance_threshold(self.variance_threshold)
        if self.thresholds is not None:
            parse_aim(self.thresholds)
        if self.calibrate not in (AUTO, *CALIBRATIONS):
            raise UnknownNameError("calibration", self.calibrate, (AUTO, *CALIBRATIONS))

    @classmethod
    def of(
        cls,
        head: str | BaseEstimator = DEFAULT_HEAD,
        *,
        solver: str | None = None,
        task: str = Task.PER_ATTRIBUTE,
        **others: Any,
    ) -> Self:
        """Settings with the head's default solver unless another is named.

        Parameters
        ----------
        head : str or BaseEstimator
            A head of the table, or a classifier of one's own.
        solver : str, optional
        task : str
            A `Task` or its value.
        **others
            Other attributes of `HeadSettings`.

        Raises
        ------
        UsageError
            If a name does not exist, a threshold cannot be read, or a head of one's own cannot
            be used; see `featurepipe.models.heads.own_head.OwnHead.of`.
        """
        if not isinstance(head, str):
            own = OwnHead.of(head, others.get("seed", cls.seed))
            return cls(title_of(head), solver, Task.named(task), own=own, **others)
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

    def with_estimator(self, estimator: BaseEstimator | None) -> Self:
        """The same settings, with the estimator that `run.json` does not hold.

        Parameters
        ----------
        estimator : BaseEstimator or None
            Ignored for a head of the table.
        """
        return replace(self, own=self.own and replace(self.own, estimator=estimator))

    def as_dict(self) -> dict[str, Any]:
        """Everything that decides the heads, as JSON values."""
        facts = {
            field.name: getattr(self, field.name) for field in fields(self) if field.name != "own"
        }
        return facts if self.own is None else facts | {"own": self.own.digest}

    def _require_usable_with_own(self) -> None:
        # It is shown, and becomes part of the run's name.
        if not self.head.isidentifier():
            raise UsageError(f"The name {self.head!r} of the head's class is no name in Python.")
        if self.solver is not None:
            raise UsageError(
                f"--solver {self.solver} only applies to --head bagged-sgd, not to the head "
                f"{self.head} of your own. Omit it."
            )
        if self.tune:
            raise UsageError(
                f"--tune does not know what to try for the head {self.head} of your own. Omit it, "
                "or give sklearn.model_selection.GridSearchCV as the head."
            )
