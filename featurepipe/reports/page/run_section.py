"""The section of one run: what it reads, how good it is, and where it errs."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from featurepipe.predictions import ALL
from featurepipe.reports.attribute_predictions import AttributePredictions
from featurepipe.reports.figures import accuracies
from featurepipe.reports.intervals import accuracy_interval
from featurepipe.reports.page.charts import (
    Chart,
    Values,
    count_cell,
    name_cell,
    share_cell,
)
from featurepipe.reports.page.class_table import class_figures, class_values
from featurepipe.reports.page.confusion import confusion_chart, confusion_of
from featurepipe.reports.page.error_pictures import (
    FindNearest,
    Picture,
    pictures_of,
    surest_errors,
    unsure_answers,
)
from featurepipe.reports.page.learning_chart import learning_chart
from featurepipe.reports.page.page_run import PageRun
from featurepipe.reports.page.precision_recall import label_curves, precision_recall_chart
from featurepipe.reports.page.reliability_chart import reliability_chart, reliability_curves
from featurepipe.reports.page.risk_coverage import risk_chart, risk_curve
from featurepipe.reports.page.thumbnails import Thumbnails
from featurepipe.reports.page.training_chart import training_charts
from featurepipe.reports.page.trial_chart import in_words, trial_chart, trials_of
from featurepipe.reports.resampling import Resamples
from featurepipe.reports.terminal_text import percent_with_interval
from featurepipe.words import listed, visible

N_ERRORS, N_UNSURE = 12, 6
"""Pictures of an attribute of the run to take; other runs show half as many."""

_MOST_OPEN = 4


@dataclass(frozen=True)
class AttributeSection:
    """What the page says about one attribute of a run.

    Attributes
    ----------
    name : str
    accuracy : str
        On test images, with its interval.
    reads : str
        A sentence.
    charts : tuple of Chart
    classes : Values or None
        None without a test image.
    errors, unsure : tuple of Picture
        The surest wrong answers, and the least sure right ones.
    n_errors : int
    n_images : int
        Test images, and those of held-out combinations, that are labelled.
    is_open : bool
    """

    name: str
    accuracy: str
    reads: str
    charts: tuple[Chart, ...]
    classes: Values | None
    errors: tuple[Picture, ...]
    unsure: tuple[Picture, ...]
    n_errors: int
    n_images: int
    is_open: bool


@dataclass(frozen=True)
class RunSection:
    """What the page says about a run.

    Attributes
    ----------
    name, split : str
    anchor : str
        Its id in the page.
    accuracy : str
        Of all attributes together, on test images, with its interval.
    reads : str
    accuracies : Values
        By attribute.
    attributes : tuple of AttributeSection
    learning : tuple of Chart
        Learning curve, and the course of a training.
    provenance : mapping of str to str
    command : str
    is_open, is_current : bool
    """

    name: str
    split: str
    anchor: str
    accuracy: str
    reads: str
    accuracies: Values
    attributes: tuple[AttributeSection, ...]
    learning: tuple[Chart, ...]
    provenance: Mapping[str, str]
    command: str
    is_open: bool
    is_current: bool


def run_section(
    run: PageRun,
    thumbnails: Thumbnails,
    *,
    anchor: str,
    is_open: bool,
    find_nearest: FindNearest | None = None,
) -> RunSection:
    """Summarise and draw one run.

    Parameters
    ----------
    run : PageRun
    thumbnails : Thumbnails
    anchor : str
        Id of the section in the page.
    is_open : bool
        Whether it is the run to take, which is open and shows more pictures.
    find_nearest : FindNearest, optional
        Shows the nearest training images beside each error.
    """
    names = list(run.predictions.labels)
    learning = [learning_chart(run.learning_curve)] if run.learning_curve else []
    training = [] if run.history is None else training_charts(run.history)
    return RunSection(
        name=visible(run.name),
        split=visible(run.split),
        anchor=anchor,
        accuracy=_accuracy(run, ALL),
        reads=_reads(run),
        accuracies=_accuracy_table(run),
        attributes=tuple(
            _attribute_section(
                run,
                name,
                thumbnails,
                find_nearest,
                is_main=is_open,
                is_open=is_open and len(names) <= _MOST_OPEN,
            )
            for name in names
        ),
        learning=(*learning, *training),
        provenance=run.provenance,
        command=run.command,
        is_open=is_open,
        is_current=run.is_current,
    )


def _attribute_section(
    run: PageRun,
    attribute: str,
    thumbnails: Thumbnails,
    find_nearest: FindNearest | None,
    *,
    is_main: bool,
    is_open: bool,
) -> AttributeSection:
    test = AttributePredictions.of(run.predictions.select("test"), attribute)
    judged = AttributePredictions.of(run.predictions, attribute)
    share = 1 if is_main else 2
    trials = trials_of(run.trials, attribute)
    return AttributeSection(
        name=visible(attribute),
        accuracy=_accuracy(run, attribute),
        reads=f"{in_words(trials)}." if trials else f"Reads {_blocks(run, attribute)}.",
        charts=(
            *_charts(run, test, attribute),
            *([trial_chart(trials)] if trials else []),
        ),
        classes=class_values(
            class_figures(test, attribute), exclusive=_is_exclusive(run, attribute)
        )
        if len(test)
        else None,
        errors=pictures_of(
            judged, surest_errors(judged, N_ERRORS // share), attribute, thumbnails, find_nearest
        ),
        unsure=pictures_of(
            judged, unsure_answers(judged, N_UNSURE // share), attribute, thumbnails, find_nearest
        ),
        n_errors=int((~judged.right).sum()),
        n_images=len(judged),
        is_open=is_open,
    )


def _charts(run: PageRun, test: AttributePredictions, attribute: str) -> list[Chart]:
    charts = []
    if len(test) and _is_exclusive(run, attribute):
        charts.append(confusion_chart(confusion_of(test, attribute)))
    elif len(test) and (curves := label_curves(test, attribute)):
        charts.append(precision_recall_chart(curves))
    if attribute in run.calibrated and attribute in run.uncalibrated:
        curves_of = reliability_curves(run.uncalibrated[attribute], run.calibrated[attribute])
        charts.append(reliability_chart(curves_of))
    if len(test) and (risks := risk_curve(test)) is not None:
        charts.append(risk_chart(risks))
    return charts


def _is_exclusive(run: PageRun, attribute: str) -> bool:
    return run.predictions.labels[attribute].exclusive


def _accuracy(run: PageRun, attribute: str, part: str = "test") -> str:
    return percent_with_interval(*_measured(run, attribute, part))


def _measured(run: PageRun, attribute: str, part: str) -> tuple[float, float, float]:
    """Accuracy and its interval on a part; NaN without images."""
    judged = AttributePredictions.of(run.predictions.select(part), attribute)
    if not len(judged):
        return np.nan, np.nan, np.nan
    interval = accuracy_interval(judged.right, Resamples(judged.predictions.groups))
    return float(judged.right.mean()), *interval


def _accuracy_table(run: PageRun) -> Values:
    chosen_by = accuracies(run.selection)
    has_held_out = bool((run.predictions.parts == "unseen").any())
    names = [*run.predictions.labels, ALL]
    if len(names) == 2:
        names = names[:1]
    rows = []
    for name in names:
        test = run.predictions.select("test")
        n_images = len(AttributePredictions.of(test, name))
        rows.append(
            (
                name_cell(name),
                count_cell(n_images),
                share_cell(chosen_by[name]),
                share_cell(*_measured(run, name, "test")),
                *([share_cell(*_measured(run, name, "unseen"))] if has_held_out else []),
            )
        )
    columns = (
        "Attribute", "Test images", "Selection accuracy", "Test accuracy (95 % CI)",
        *(["Held-out combinations (95 % CI)"] if has_held_out else []),
    )  # fmt: skip
    return Values(columns, tuple(rows))


def _blocks(run: PageRun, attribute: str) -> str:
    return visible(" + ".join(run.reads.get(attribute, ())))


def _reads(run: PageRun) -> str:
    """What the run reads, shortly: attributes that read the same are not repeated."""
    by_attribute = {name: _blocks(run, name) for name in run.predictions.labels}
    if len(set(by_attribute.values())) == 1:
        return next(iter(by_attribute.values()))
    return listed(f"{visible(name)}: {blocks}" for name, blocks in by_attribute.items())
