"""Two runs compared image by image: where only one of them is right, and whether that is chance."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from featurepipe.predictions import ALL, Predictions
from featurepipe.reports.attribute_predictions import AttributePredictions
from featurepipe.reports.figures import accuracies
from featurepipe.reports.page.charts import Values, count_cell, figure_cell, name_cell, share_cell
from featurepipe.reports.page.error_pictures import Picture, answer_names, true_names
from featurepipe.reports.page.page_run import PageRun
from featurepipe.reports.page.thumbnails import Thumbnails
from featurepipe.reports.paired_tests import LEVEL, holm, sign_flip_test
from featurepipe.reports.resampling import Resamples
from featurepipe.reports.terminal_text import figure, percent
from featurepipe.words import counted, visible

N_PICTURES = 8
"""Pictures each way."""


@dataclass(frozen=True)
class RightAndWrong:
    """How often both runs, one of them, or none is right about an attribute.

    Attributes
    ----------
    attribute : str
        Or ``"all"``.
    both, only_first, only_second, neither : int
        Test images.
    p_value : float
        See `featurepipe.reports.paired_tests.sign_flip_test`; not corrected. NaN without images.
    """

    attribute: str
    both: int
    only_first: int
    only_second: int
    neither: int
    p_value: float

    @property
    def n_images(self) -> int:
        """Images that both runs answered."""
        return self.both + self.only_first + self.only_second + self.neither


@dataclass(frozen=True)
class Comparison:
    """Two runs compared.

    Attributes
    ----------
    first, second : str
        Names of the runs.
    overall : RightAndWrong
        Of all attributes together.
    in_words : str
    table : Values
        One row for each attribute.
    only_first, only_second : tuple of Picture
        Test images that only this run answers correctly, at most `N_PICTURES`.
    """

    first: str
    second: str
    overall: RightAndWrong
    in_words: str
    table: Values
    only_first: tuple[Picture, ...]
    only_second: tuple[Picture, ...]


def rival_of(taken: PageRun, runs: Sequence[PageRun]) -> PageRun | None:
    """The most accurate run of another kind than a run, on the same test images.

    Parameters
    ----------
    taken : PageRun
    runs : sequence of PageRun
        It may be among them.

    Returns
    -------
    PageRun or None
        Of the runs of its split that are networks if it is none, or the reverse, or that read
        other features: the one with the highest accuracy on training images, out of fold, over
        all attributes; the first of several. None if there is none.
    """
    of_another_kind = [run for run in runs if _differs(taken, run) and _comparable(taken, run)]
    if not of_another_kind:
        return None
    return max(of_another_kind, key=lambda run: np.nan_to_num(accuracies(run.selection)[ALL]))


def compare(first: PageRun, second: PageRun, thumbnails: Thumbnails) -> Comparison:
    """Compare two runs on the test images of their split.

    Parameters
    ----------
    first, second : PageRun
        Of the same test images and attributes; see `rival_of`.
    thumbnails : Thumbnails
    """
    one, other = (_test_rows(run) for run in (first, second))
    names = list(one.labels)
    counts = [
        _right_and_wrong(one, other, name) for name in ([*names, ALL] if len(names) > 1 else names)
    ]
    overall = replace(counts[-1], attribute=ALL)
    shown = [
        _only_one_right(winner, loser, names) for winner, loser in ((one, other), (other, one))
    ]
    labels = visible(first.name), visible(second.name)
    return Comparison(
        *labels,
        overall=overall,
        in_words=_in_words(*labels, overall),
        table=_table(*labels, counts),
        only_first=_pictures(one, other, shown[0], names, labels, thumbnails),
        only_second=_pictures(one, other, shown[1], names, labels, thumbnails),
    )


def _differs(taken: PageRun, run: PageRun) -> bool:
    reads = [{name: tuple(blocks) for name, blocks in of.reads.items()} for of in (taken, run)]
    return taken.is_network != run.is_network or reads[0] != reads[1]


def _comparable(taken: PageRun, run: PageRun) -> bool:
    """Whether two runs answered the same questions about the same test images."""
    one, other = (_test_rows(of) for of in (taken, run))
    return (
        taken.split == run.split
        and list(one.labels) == list(other.labels)
        and len(one) > 0
        and np.array_equal(one.ids, other.ids)
    )


def _test_rows(run: PageRun) -> Predictions:
    """Test rows, ordered by image."""
    test = run.predictions.select("test")
    return test.take(np.argsort(test.ids, kind="stable"))


def _right_and_wrong(first: Predictions, second: Predictions, attribute: str) -> RightAndWrong:
    one, other = (AttributePredictions.of(rows, attribute) for rows in (first, second))
    p_value = np.nan
    if len(one):
        resamples = Resamples(one.predictions.groups)
        n_right = [resamples.sums(of.right).astype(np.intp) for of in (one, other)]
        p_value = sign_flip_test(n_right[0] - n_right[1])
    return RightAndWrong(
        attribute,
        both=int((one.right & other.right).sum()),
        only_first=int((one.right & ~other.right).sum()),
        only_second=int((~one.right & other.right).sum()),
        neither=int((~one.right & ~other.right).sum()),
        p_value=p_value,
    )


def _in_words(first: str, second: str, counts: RightAndWrong) -> str:
    n_only = counts.only_first + counts.only_second
    if not n_only:
        return f"{first} and {second} are right on the same {counted(counts.both, 'image')}."
    shares = [
        (counts.both + only) / counts.n_images for only in (counts.only_first, counts.only_second)
    ]
    said = (
        f"{first} is right on {percent(shares[0])} of {counted(counts.n_images, 'test image')}, "
        f"{second} on {percent(shares[1])}. Of the {counted(n_only, 'image')} that only one of "
        f"them answers correctly, {first} has {counts.only_first:,} and {second} "
        f"{counts.only_second:,}."
    )
    if counts.p_value < LEVEL:
        better = first if counts.only_first > counts.only_second else second
        return f"{said} {better} is significantly more accurate (paired test, p = " + (
            f"{figure(counts.p_value)})."
        )
    return (
        f"{said} These images do not show that either is more accurate (paired test, p = "
        f"{figure(counts.p_value)})."
    )


def _table(first: str, second: str, counts: Sequence[RightAndWrong]) -> Values:
    corrected = holm(np.nan_to_num([of.p_value for of in counts], nan=1.0))
    rows = tuple(
        (
            name_cell("all together" if of.attribute == ALL else of.attribute),
            count_cell(of.both),
            count_cell(of.only_first),
            count_cell(of.only_second),
            count_cell(of.neither),
            share_cell((of.only_first - of.only_second) / of.n_images if of.n_images else np.nan),
            figure_cell(p_value if of.n_images else np.nan),
        )
        for of, p_value in zip(counts, corrected, strict=True)
    )
    columns = (
        "Attribute", "Both right", f"Only {first}", f"Only {second}", "Both wrong", "Difference",
        "p-value",
    )  # fmt: skip
    caption = "Test images."
    if len(counts) > 1:
        caption += " p-values are corrected for the number of rows (Holm)."
    return Values(columns, rows, caption)


def _only_one_right(
    winner: Predictions, loser: Predictions, names: Sequence[str]
) -> NDArray[np.intp]:
    """Positions of images about which only one run is right, where the other is surest first."""
    labelled = np.all([winner.labels[name].labelled for name in names], axis=0)
    right, wrong = (
        np.all([rows.correct(name) for name in names], axis=0) for rows in (winner, loser)
    )
    found = np.flatnonzero(labelled & right & ~wrong)
    confidence = np.prod([loser.confidence(name) for name in names], axis=0)
    return found[np.argsort(-confidence[found], kind="stable")][:N_PICTURES]


def _pictures(
    one: Predictions,
    other: Predictions,
    rows: NDArray[np.intp],
    names: Sequence[str],
    labels: tuple[str, str],
    thumbnails: Thumbnails,
) -> tuple[Picture, ...]:
    """What both runs say about some images, of the attributes about which they disagree."""
    first, second = one.take(rows), other.take(rows)
    disagree = {name: first.correct(name) != second.correct(name) for name in names}
    said = {
        name: list(
            zip(
                true_names(first, name),
                answer_names(first, name),
                answer_names(second, name),
                strict=True,
            )
        )
        for name in names
    }
    headings = ("Truth", *labels)
    return tuple(
        Picture(
            image_id=visible(str(image_id)),
            uri=thumbnails.of(str(image_id)),
            lines=tuple(
                (heading, answer)
                for name in names
                if disagree[name][row]
                for heading, answer in zip(headings, said[name][row], strict=True)
            ),
            is_held_out=False,
        )
        for row, image_id in enumerate(first.ids)
    )
