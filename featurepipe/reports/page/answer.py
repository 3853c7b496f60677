"""The answer of a page in sentences: which run to take, how sure that is, what it leaves open."""

import numpy as np
import pandas as pd
from markupsafe import Markup

from featurepipe.manifest import Labels
from featurepipe.predictions import ALL
from featurepipe.reports.board_advice import run_to_take, split_advice
from featurepipe.reports.page.isolated_names import named, sentence
from featurepipe.reports.page.page_data import PageData, PageSplit
from featurepipe.reports.terminal_text import percent, percent_with_interval, shortened
from featurepipe.words import counted, visible

_FEW_TEST_IMAGES = 10
_MAX_NAME = 40


def question(attributes: list[str]) -> Markup:
    """What the runs were made to answer, as a question.

    Parameters
    ----------
    attributes : list of str
    """
    names = [named(shortened(visible(name), _MAX_NAME)) for name in attributes[:6]]
    if len(attributes) > 6:
        names = [*names[:5], f"{len(attributes) - 5} more attributes"]
    what = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return sentence(f"Which run should recognise {what} in new images?")


def answer(
    rows: pd.DataFrame, data: PageData | None, taken: str | None, series: pd.DataFrame
) -> list[Markup]:
    """Which run to take, which are tied with it, and what is not known.

    Parameters
    ----------
    rows : pandas.DataFrame
        Rows of the board of one split, for all attributes together, the most accurate first.
    data : PageData or None
    taken : str or None
        The run that `featurepipe.predict` takes; None: that of `run_to_take`.
    series : pandas.DataFrame
        Summaries of series, for all attributes together.

    Returns
    -------
    list of Markup
        Paragraphs: two sentences of `split_advice`, the mean over the series if there is one,
        and what is left open. Only the first where no run can be taken.
    """
    # The terminal's table has this sign in a column of its own.
    advice = [sentence(split_advice(rows, ALL, named, taken=taken).replace(" (=)", ""))]
    position = run_to_take(rows)
    if position is None:
        return advice
    row = rows.iloc[position] if taken is None else rows[rows["run"] == taken].iloc[0]
    is_mean = series["run"].str.startswith(f"{row['run']} (")
    means = [sentence(_means(mean)) for _, mean in series[is_mean].head(1).iterrows()]
    return [*advice, *means, sentence(_left_open(row, rows, data))]


def rarest_class(labels: Labels, of_part: np.ndarray) -> tuple[str, int]:
    """The class with the fewest images in a part, and how many it has.

    Parameters
    ----------
    labels : Labels
    of_part : ndarray of shape (n_images,), bool
    """
    counts = labels.indicator[of_part].sum(axis=0)
    rarest = int(counts.argmin())
    return labels.classes[rarest], int(counts[rarest])


def _means(row: pd.Series) -> str:
    """What the same settings reach over the splits of a series."""

    def mean(name: str) -> str:
        return f"{percent(row[name])} ± {percent(row[f'{name}_sd'])}"

    said = f"Over its series of splits, the same settings are right on {mean('accuracy')} of test"
    if pd.isna(row["unseen_accuracy"]):
        return f"{said} images (mean ± standard deviation)."
    return (
        f"{said} images and on {mean('unseen_accuracy')} of held-out combinations (mean ± standard "
        "deviation)."
    )


def _better_on_unseen(row: pd.Series, rows: pd.DataFrame) -> str:
    """The run that is clearly better on held-out combinations, though not on test images."""
    is_tied = rows["tied_with_best"].fillna(False).astype(bool)
    others = rows[
        is_tied & rows["current"] & (rows["unseen_accuracy_low"] > row["unseen_accuracy_high"])
    ]
    if others.empty:
        return ""
    best = others.sort_values("unseen_accuracy", ascending=False, kind="stable").iloc[0]
    unseen = percent_with_interval(
        best["unseen_accuracy"], best["unseen_accuracy_low"], best["unseen_accuracy_high"]
    )
    return (
        f"; {named(best['run'])} is right on {unseen}. If new images show combinations that no "
        "training image does, take that one"
    )


def _left_open(row: pd.Series, rows: pd.DataFrame, data: PageData | None) -> str:
    unknown = ["images from another source than these"]
    seen = ""
    split = data.splits.get(str(row["split"])) if data is not None else None
    if row["n_unseen"] > 0:
        unseen = percent_with_interval(
            row["unseen_accuracy"], row["unseen_accuracy_low"], row["unseen_accuracy_high"]
        )
        images = counted(int(row["n_unseen"]), "image")
        better = _better_on_unseen(row, rows)
        seen = (
            f"On combinations held out from training it is right on {unseen} of {images}{better}. "
        )
    elif data is not None and len(data.exclusive) > 1:
        unknown.append(
            "combinations of classes that training never saw, since this split holds out none"
        )
    if data is not None and split is not None:
        unknown += _few_test_images(data, split)
    known = f"{seen}Not known: how it does on {_joined(unknown)}"
    return f"{known}{_leaks(split)}."


def _few_test_images(data: PageData, split: PageSplit) -> list[str]:
    rarest = [
        (name, *rarest_class(labels, split.parts == "test"))
        for name, labels in data.labels.items()
        if len(labels.classes)
    ]
    if not rarest:
        return []
    name, label, n_images = min(rarest, key=lambda found: found[2])
    if n_images >= _FEW_TEST_IMAGES:
        return []
    return [f"{named(name)} {named(label)}, which {_has(n_images)}"]


def _has(n_images: int) -> str:
    return f"has only {counted(n_images, 'test image')}" if n_images else "has no test image"


def _leaks(split: PageSplit | None) -> str:
    if split is None or split.groups_duplicates or split.leaks == []:
        return ""
    if split.leaks is None:
        return ", nor whether near-duplicates lie in both training and test"
    pairs = counted(len(split.leaks), "pair")
    return (
        f". {pairs} of near-duplicates across training and test images may make its figures too "
        "good"
    )


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])}, or on {parts[-1]}"
