"""How networks are compiled: optimisers, rates, losses and the figures of an epoch."""

import numpy as np
import pytest

from featurepipe.manifest.labels import labels_of
from featurepipe.models.networks.losses import cross_entropies, total_losses
from featurepipe.models.networks.network_settings import NetworkSettings
from featurepipe.models.networks.outputs import make_targets
from featurepipe.models.networks.recipes import Stage
from small_networks import (
    GARMENTS,
    TINY_WIDTH,
    build_tiny,
)

keras = pytest.importorskip("keras")

from featurepipe.models.networks.compiling import (  # noqa: E402
    SAME_WEIGHT,
    compile_graph,
    training_figures,
)

pytestmark = [
    pytest.mark.keras,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:keras"),
]


@pytest.fixture(scope="module")
def tiny():
    return build_tiny()


@pytest.fixture(scope="module")
def tiny_pair():
    return build_tiny(pairs=True)


def compiled(network, stage, n_epochs=5):
    graph = network.features_graph()
    compile_graph(graph, network, stage, n_epochs)
    return graph


def rates(graph, steps):
    found = []
    for step in steps:
        graph.optimizer.iterations.assign(step)
        found.append(float(keras.ops.convert_to_numpy(graph.optimizer.learning_rate)))
    return found


def test_optimisers_and_rates_are_those_of_the_stage(tiny):
    sgd = compiled(tiny, Stage("top", "sgd", 0.1, momentum=0.99)).optimizer
    assert isinstance(sgd, keras.optimizers.SGD)
    assert (sgd.momentum, sgd.nesterov) == (0.99, True)
    constant = compiled(tiny, Stage("top", "adam", 0.1))
    assert isinstance(constant.optimizer, keras.optimizers.Adam)
    np.testing.assert_allclose(rates(constant, [0, 50]), [0.1, 0.1], rtol=1e-6)
    decay = compiled(tiny, Stage("all", "adam", 0.1, schedule="decay"))
    np.testing.assert_allclose(rates(decay, [0, 10, 50]), [0.1, 0.1 / 1.2, 0.1 / 2], rtol=1e-5)


def test_the_loss_of_a_pair_is_that_of_both_images_and_half_of_same(tiny_pair):
    targets = make_targets(GARMENTS, NetworkSettings.of("pair"))
    features = np.random.default_rng(0).normal(size=(4, TINY_WIDTH)).astype(np.float32)
    partners = np.array([1, 2, 0, 3], np.int32)
    same = np.array([[0], [1], [0], [1]], np.float32)
    same_counts = np.array([1, 1, 0, 0], np.float32)
    truth = {name: targets.truth[name] for name in GARMENTS}
    weights = {name: targets.weights[name] for name in GARMENTS}
    graph = compiled(tiny_pair, Stage("top"))
    logs = graph.test_on_batch(
        {"seen": features, "partners": partners},
        truth | {f"{k}_partner": x[partners] for k, x in truth.items()} | {"same": same},
        weights | {f"{k}_partner": x[partners] for k, x in weights.items()}
        | {"same": same_counts},
        return_dict=True,
    )  # fmt: skip
    scores = tiny_pair.score_features(features)
    distances = np.sqrt(np.mean((features - features[partners]) ** 2, axis=1))
    of_same = np.logaddexp(0, np.where(same[:, 0] > 0, -1, 1) * (1 - distances))
    expected = SAME_WEIGHT * (of_same * same_counts).sum() / 4
    for output in tiny_pair.outputs:
        losses = cross_entropies(output, scores[:, output.columns], truth[output.attribute])
        counted = losses * weights[output.attribute]
        expected += (counted.sum() + counted[partners].sum()) / 4
    assert SAME_WEIGHT == 0.5
    assert logs["loss"] == pytest.approx(expected, rel=1e-4)
    figures = training_figures(logs, tiny_pair)
    assert sorted(figures) == [
        "train_accuracy:article", "train_accuracy:color", "train_accuracy:same",
        "train_loss", "train_loss:article", "train_loss:color", "train_loss:same",
    ]  # fmt: skip
    counted = weights["article"] > 0
    own = tiny_pair.outputs[0]
    hits = scores[counted][:, own.columns].argmax(axis=1) == truth["article"][counted].argmax(1)
    assert figures["train_accuracy:article"] == pytest.approx(hits.mean(), abs=1e-6)
    right = (distances[:2] < 1) == (same[:2, 0] > 0)
    assert figures["train_accuracy:same"] == pytest.approx(right.mean(), abs=1e-6)


def test_of_a_single_output_figures_are_told_by_its_name():
    tags = {"tags": labels_of("tags", [("a", "b"), ("a",), (), ("b",)])}
    network = build_tiny(tags, "smallervggnet")
    targets = make_targets(tags, NetworkSettings.of("smallervggnet"))
    features = np.random.default_rng(1).normal(size=(4, TINY_WIDTH)).astype(np.float32)
    logs = compiled(network, Stage("all")).test_on_batch(
        features, targets.truth, targets.weights, return_dict=True
    )
    scores = network.score_features(features)
    expected = total_losses(network.outputs, scores, targets)
    figures = training_figures(logs, network)
    assert figures["train_loss"] == pytest.approx(float(expected), rel=1e-5)
    assert figures["train_loss:tags"] == pytest.approx(float(expected), rel=1e-5)
    right = ((scores > 0) == (targets.truth["tags"] > 0)).mean()
    assert figures["train_accuracy:tags"] == pytest.approx(right)
