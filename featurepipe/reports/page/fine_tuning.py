"""Whether fine-tuning is worth it: the best network against the best heads, in sentences."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from markupsafe import Markup

from featurepipe.predictions import ALL
from featurepipe.reports.attribute_predictions import AttributePredictions
from featurepipe.reports.board import images_and_labels
from featurepipe.reports.board_advice import run_to_take
from featurepipe.reports.page.board_table import is_network
from featurepipe.reports.page.isolated_names import named, sentence
from featurepipe.reports.page.page_run import PageRun
from featurepipe.reports.paired_tests import LEVEL, sign_flip_test
from featurepipe.reports.resampling import Resamples
from featurepipe.reports.terminal_text import duration, figure, percent
from featurepipe.words import counted


def fine_tuning_advice(rows: pd.DataFrame, runs: Sequence[PageRun]) -> Markup:
    """Whether the best network is better than the best heads, by a paired test.

    Both are those of the best selection accuracy, so that one test needs no correction.

    Parameters
    ----------
    rows : pandas.DataFrame
        Rows of the board of one split, for all attributes together.
    runs : sequence of PageRun
    """
    is_of_network = rows.apply(is_network, axis=1)
    networks, heads = rows[is_of_network], rows[~is_of_network]
    if networks.empty:
        return _try("No network was trained on this split. Try one:", "train finetune")
    if heads.empty:
        return _try("No head was fitted on this split. See how far frozen features get:", "fit")
    network, head = _best(networks), _best(heads)
    if network is None or head is None:
        return sentence("No pair of a network and heads has a selection accuracy to choose by.")
    by_name = {run.name: run for run in runs}
    ours, theirs = (
        AttributePredictions.of(by_name[row["run"]].predictions.select("test"), ALL)
        for row in (network, head)
    )
    if images_and_labels(ours.predictions) != images_and_labels(theirs.predictions):
        return sentence("Networks and heads answered different images, so they are not compared.")
    return sentence(f"{_verdict(ours, theirs, network, head)} {_costs(network, head)}")


def _try(text: str, command: str) -> Markup:
    return Markup("{} <code>featurepipe {}</code>").format(text, command)


def _best(rows: pd.DataFrame) -> pd.Series | None:
    position = run_to_take(rows)
    return None if position is None else rows.iloc[position]


def _verdict(
    ours: AttributePredictions,
    theirs: AttributePredictions,
    network: pd.Series,
    head: pd.Series,
) -> str:
    resamples = Resamples(ours.predictions.groups)
    differences = (resamples.sums(ours.right) - resamples.sums(theirs.right)).astype(np.intp)
    p_value = sign_flip_test(differences)
    only_network = int((ours.right & ~theirs.right).sum())
    only_heads = int((~ours.right & theirs.right).sum())
    if p_value >= LEVEL:
        start = "These test images do not show that training a network is worth it."
        end = "which may be chance"
    elif only_network > only_heads:
        start, end = "Training a network makes it more accurate.", "more than chance explains"
    else:
        start, end = "Training a network is not worth it here.", "more than chance explains"
    return (
        f"{start} The best network, {named(network['run'])}, is right on "
        f"{percent(network['accuracy'])} of the test images; the best heads on frozen features, "
        f"{named(head['run'])}, on {percent(head['accuracy'])}. Only the network is right on "
        f"{counted(only_network, 'image')}, only the heads on {only_heads:,}: {end} (McNemar's "
        f"test, p {_p_text(p_value)})."
    )


def _p_text(p_value: float) -> str:
    return f"= {p_value:.3f}" if p_value >= 0.001 else "< 0.001"


def _costs(network: pd.Series, head: pd.Series) -> str:
    said = f"The network took {duration(network['fit_s'])} to train, the heads "
    said += f"{duration(head['fit_s'])} to fit, after features are extracted"
    ms = network["predict_ms_per_image"], head["predict_ms_per_image"]
    if not any(map(pd.isna, ms)):
        said += f"; to predict, they take {figure(ms[0])} and {figure(ms[1])} ms per image"
    return f"{said}."
