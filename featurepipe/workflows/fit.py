"""fit(): cached features -> fitted heads, one run for each backbone and split."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from sklearn.base import BaseEstimator

from featurepipe.cluster.spreading import call_each
from featurepipe.errors import UsageError
from featurepipe.manifest import Manifest, Relabelling
from featurepipe.models.heads.head_settings import DEFAULT_HEAD, HeadSettings
from featurepipe.models.studies.hold_outs import OBJECTIVES
from featurepipe.runs.naming import reserve_name
from featurepipe.runs.run_folder import NewRun, save_run
from featurepipe.runs.summary import summary
from featurepipe.words import names_of
from featurepipe.workflows.curves import check_curve, with_curve
from featurepipe.workflows.dividing import save_splits, wanted_split
from featurepipe.workflows.executors import Executor
from featurepipe.workflows.feature_sets import AUTO, check_features
from featurepipe.workflows.fit_plan import FitPlan, FitRequest, plan_fit
from featurepipe.workflows.fit_task import LIBRARIES, FitLimits, fit_task
from featurepipe.workflows.leaks import warn_of_imagenet_classes, warn_of_near_duplicates
from featurepipe.workflows.relabelling import relabelled, require_images


def fit(
    *,
    head: str | BaseEstimator | None = None,
    trusted: Sequence[str] = (),
    solver: str | None = None,
    backbone: str | Sequence[str] = (),
    task: str = "per-attribute",
    features: str | None = None,
    objective: str | None = None,
    calibrate: str = HeadSettings.calibrate,
    thresholds: str | None = None,
    variance_threshold: str | None = None,
    tune: bool = False,
    test_size: float | None = None,
    hold_out: Sequence[str] = (),
    hold_out_each: bool = False,
    repeats: int | None = None,
    group: str | None = None,
    group_duplicates: bool = False,
    allow_partial: bool = False,
    curve: str | None = None,
    attributes: Sequence[str] = (),
    labels: Path | str | None = None,
    label_separator: str | None = None,
    min_per_class: int | None = None,
    workspace: Path | str = ".",
    n_jobs: int = -1,
    memory: str | None = None,
    executor: str = "local",
    ray_address: str | None = None,
    seed: int | None = None,
) -> pd.DataFrame:
    """Fit heads on cached features, and predict the test images once.

    Everything that can be refused is refused before anything is written or fitted.

    Parameters
    ----------
    head : str or BaseEstimator, optional
        ``bagged-sgd``, ``logistic``, ``svm`` or ``knn``; default: ``bagged-sgd``. With the features
        ``auto``, the default is to choose one of the first two, by trials on training images,
        unless `solver` is given. Or a scikit-learn classifier, or pipeline that ends
        in one, with `decision_function` or `predict_proba`. It is cloned; each `random_state`
        that is None becomes the seed. The targets are numbers of classes, from 0.
    trusted : sequence of str
        Types such as ``"mypackage.MyClassifier"`` that such a classifier is made of, and that
        skops does not trust by itself. Name them again to `predict`.
    solver : str, optional
        ``sklearn`` fits bagged SGD with scikit-learn itself, which takes about a hundred
        times as long; default: ``minibatch``.
    backbone : str or sequence of str
        Backbones whose features to fit on; default: every store. Each store gives a run.
    task : {"per-attribute", "multi-label", "joint"}
        One head per attribute, one OneVsRest head for all labels, or one head for the
        combinations of classes.
    features : str, optional
        Fit one run on these features: ``store+store`` for all attributes,
        ``attribute=store+store,…`` for each, or ``auto``, which tries all stores and their
        pairs on training images. A store is ``backbone:view``, ``backbone`` for the view rgb,
        or the name of its file.
    objective : {"balanced", "unseen", "seen"}, optional
        What ``auto`` maximises: accuracy on combinations of classes that were not trained
        on, on those that were, or (default) the mean of both.
    calibrate : {"auto", "sigmoid", "isotonic", "temperature", "none"}
        How scores become probabilities; fitted out of fold on training images. ``auto`` is
        temperature for exclusive classes and sigmoid for sets of labels.
    thresholds : str, optional
        Goal of the thresholds for sets of labels, chosen out of fold: ``f1``,
        ``precision=0.9`` or ``recall=0.8``; default: every threshold is 0.5.
    variance_threshold : str, optional
        ``"1%"`` of the mean variance (default), or an absolute variance such as ``"0.01"``.
    tune : bool
        Choose penalty, variance threshold and scaling for each head on inner folds of its
        training images; see `featurepipe.models.heads.tuning`.
    test_size, hold_out, repeats, group, seed
        Make a split, or find the same one again; without any of them, the workspace's
        first split is used. See `featurepipe.splits.SplitSettings`. `seed` (default 0) is
        also the seed of the heads.
    hold_out_each : bool
        Hold out every combination in turn whose classes also occur in others: one split
        for each, equal to that of `hold_out`.
    group_duplicates : bool
        Keep near-duplicates on one side of the split, as the first suitable store finds them.
    allow_partial : bool
        Leave out images whose features are not extracted yet.
    curve : {"images", "combinations"}, optional
        Also fit on growing shares of the training images, and say whether more images would
        help; see `featurepipe.models.studies.learning_curve`. Takes about 15 times as long. Or
        fit on growing numbers of combinations of classes, and say whether images of more
        combinations would help with unseen ones; see
        `featurepipe.models.studies.combination_curve`.
    attributes, labels, label_separator, min_per_class
        Relabel the images; see `featurepipe.manifest.read_manifest`.
    workspace : Path or str
    n_jobs : int
        Processor cores to use; -1: all.
    memory : str, optional
        Bound of the memory for fitting, besides the libraries and the manifest, such as
        ``4GB``. If the training features and the copies that fits make of them do not fit,
        bagged SGD and logistic regression read them from the stores in chunks, several times;
        see `featurepipe.models.heads.fit_memory.FitMemory`. Near-duplicates are then searched
        for with `group_duplicates` only. The features ``auto`` are chosen on the same sample of
        training images as without a bound, among features and heads that fit into it. Default: no
        bound.
    executor : {"local", "ray"}
        ``"ray"``: runs, and their fits as long as there are cores, are tasks on the nodes of a
        Ray cluster, which must all see the workspace. Results are the same. `memory` is then the
        bound of each run.
    ray_address : str, optional
        As in `featurepipe.extract`.

    Returns
    -------
    pandas.DataFrame
        One row for each new run and attribute, and for ``all``: ``run, backbone, view,
        split, attribute, n_train, selection_accuracy, fit_s``. For test figures, see
        `report`.

    Raises
    ------
    FeaturepipeError
        If anything given cannot be used; see `featurepipe.errors`.
    """
    if tune and variance_threshold is not None:
        raise UsageError(
            f"--tune cannot be combined with --variance-threshold {variance_threshold}: it chooses "
            "the threshold. Omit one of them."
        )
    check_curve(curve, task)
    if curve is not None and memory is not None:
        raise UsageError(
            f"--curve {curve} cannot be combined with --memory {memory}: a learning curve "
            "reads all features at once. Omit one of them."
        )
    if names_of(trusted) and not isinstance(head, BaseEstimator):
        raise UsageError(
            f"trusted only applies to an estimator as head, and the head is {head!r}. Omit it."
        )
    check_features(features, objective, task)
    where = Executor(executor, ray_address)
    if not where.is_local and n_jobs != -1:
        raise UsageError(
            f"--jobs {n_jobs} only applies to --executor local: a cluster has the cores of its "
            "nodes. Omit it."
        )
    request = FitRequest(
        settings=HeadSettings.of(
            DEFAULT_HEAD if head is None else head,
            solver=solver,
            task=task,
            calibrate=calibrate,
            thresholds=thresholds,
            variance_threshold=variance_threshold or HeadSettings.variance_threshold,
            tune=tune,
            seed=seed or 0,
        ),
        limits=FitLimits.of(n_jobs if where.is_local else 1, memory),
        backbones=names_of(backbone),
        features=features,
        objective=objective or OBJECTIVES[0],
        choose_a_head=features == AUTO and head is None and solver is None,
        allow_partial=allow_partial,
        splits=wanted_split(
            test_size, hold_out, hold_out_each, repeats, group, group_duplicates, seed
        ),
        curve=curve,
        trusted=names_of(trusted),
    )
    home = where.workspace(workspace)
    require_images(home)
    with home.writing(), where.joined(home, *LIBRARIES):
        saved = Manifest.load(home.manifest)
        manifest = relabelled(
            saved, Relabelling(attributes, labels, group, label_separator, min_per_class)
        )
        plan, images = plan_fit(home, manifest, request)
        shared = plan if where.is_local else plan.on_cluster()
        if manifest is not saved:
            manifest.save(home.manifest)
        save_splits(home, plan.splits)
        warn_of_imagenet_classes(manifest, [cache.key.weights.kind for cache in plan.caches])
        warn_of_near_duplicates(images, plan.splits)
        # Of a million images, it holds 100 MB.
        del images
        fits = call_each(_fit_run, shared, plan.runs, nested=memory is None)
        runs = [
            save_run(home.run(reserve_name(home, title, new.info.digest)), new)
            for title, new in fits
        ]
    return summary(runs)


def _fit_run(plan: FitPlan, run: tuple[int, int]) -> tuple[str, NewRun]:
    """Fit a run; its title and what is to be saved."""
    task, curve = plan.task(run), plan.request.curve
    new = fit_task(task, task.title)
    return task.title, new if curve is None else with_curve(new, task, curve)
