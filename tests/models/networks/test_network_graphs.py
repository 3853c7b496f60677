"""Networks as Keras computes them: what is built, frozen, trained on, saved and loaded."""

import io
import json
import zipfile
from dataclasses import replace

import h5py
import numpy as np
import pytest
from scipy.special import expit, softmax

from featurepipe.errors import RunError, UsageError
from featurepipe.features.backbones import BACKBONES, find_backbone
from featurepipe.features.extraction.recipe import make_recipe
from featurepipe.manifest.labels import labels_of
from featurepipe.models.answers.questions import make_questions
from featurepipe.models.heads.fitting import fit_one_head
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.networks.building import build_network
from featurepipe.models.networks.logistic_top import fit_logistic_top
from featurepipe.models.networks.losses import cross_entropies, total_losses
from featurepipe.models.networks.network_settings import NetworkSettings
from featurepipe.models.networks.outputs import make_outputs, make_targets
from featurepipe.models.networks.recipes import NETWORKS, Augmentation, Stage
from featurepipe.models.networks.saved import SavedNetwork
from featurepipe.models.networks.verification import same_probability

keras = pytest.importorskip("keras")

from featurepipe.features.engines.keras_engine import preprocess  # noqa: E402
from featurepipe.models.networks.compiling import (  # noqa: E402
    SAME_WEIGHT,
    compile_graph,
    training_figures,
)
from featurepipe.models.networks.layers import build_augmentation  # noqa: E402
from featurepipe.models.networks.network import Network  # noqa: E402
from featurepipe.models.networks.trained import (  # noqa: E402
    TrainedNetwork,
    require_known_classes,
)

pytestmark = [
    pytest.mark.keras,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:keras"),
]

PX = 32
GARMENTS = {
    "article": labels_of("article", [("shoe",), ("shirt",), ("dress",), None]),
    "color": labels_of("color", [("red",), ("blue",), None, ("red",)]),
}
TINY_PX = 2
TINY_WIDTH = 3 * TINY_PX**2


def images(n, side=PX, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def build(name, labels=GARMENTS, size_px=PX, **options):
    """A network with random weights, as training would begin with them."""
    settings = NetworkSettings.of(name, **options)
    headless = None
    if settings.spec.has_backbone:
        recipe = make_recipe("mobilenet_v2", "random", size_px=size_px, engine="keras")
        headless = recipe.network
    return build_network(settings, make_outputs(labels, settings), size_px, headless)


def build_tiny(labels=GARMENTS, settings="finetune", layer=None, **options):
    """A network whose embedding is its pixels, so that all it says can be computed by hand."""
    settings = NetworkSettings.of(settings)
    pixels = keras.Input((TINY_PX, TINY_PX, 3), name="pixels")
    flat = (layer or keras.layers.Flatten())(pixels)
    return Network(keras.Model(pixels, flat), make_outputs(labels, settings), **options)


@pytest.fixture(scope="module")
def fashionnet():
    return build("fashionnet")


@pytest.fixture(scope="module")
def finetune():
    return build("finetune")


@pytest.fixture(scope="module")
def tiny():
    return build_tiny()


@pytest.fixture(scope="module")
def tiny_pair():
    return build_tiny(pairs=True)


def test_each_attribute_of_fashionnet_has_a_branch_of_its_own(fashionnet):
    assert fashionnet.input_size == (PX, PX)
    assert fashionnet.embedding_widths == [256, 128]
    assert fashionnet.score_and_embed(images(2)).shape == (2, 3 + 2 + 256 + 128)
    assert fashionnet.backbone is fashionnet.same is None
    # The category's branch is the deeper one.
    filters = [x.filters for x in fashionnet.trunk.layers if isinstance(x, keras.layers.Conv2D)]
    assert sorted(filters) == sorted([32, 64, 64, 128, 128, 16, 32, 32])


def test_one_branch_sees_no_colours_and_the_other_does(fashionnet):
    coloured = images(3).astype(np.float32)
    luminance = coloured @ np.array([0.2989, 0.587, 0.114], np.float32)
    grey = np.repeat(luminance[..., None], 3, axis=3)
    article, color = np.split(fashionnet.score_and_embed(coloured)[:, 5:], [256], axis=1)
    grey_article, grey_color = np.split(fashionnet.score_and_embed(grey)[:, 5:], [256], axis=1)
    np.testing.assert_allclose(article, grey_article, atol=1e-3 * np.abs(article).max())
    assert np.abs(color - grey_color).max() > 0.05 * np.abs(color).max()


def test_smallervggnet_and_resnet50_have_one_trunk_under_all_outputs():
    vgg = build("smallervggnet")
    assert vgg.embedding_widths == [1024]
    filters = [x.filters for x in vgg.trunk.layers if isinstance(x, keras.layers.Conv2D)]
    assert filters == [32, 64, 64, 128, 128]
    assert {name: tuple(x.shape) for name, x in vgg.model.output.items()} == {
        "article": (None, 3),
        "color": (None, 2),
    }
    assert vgg.model.get_layer("article").activation is keras.activations.sigmoid
    # Attributes may be called as layers of the trunk are.
    named = {"avg_pool": GARMENTS["color"], "flatten": GARMENTS["article"]}
    resnet = build("resnet50", named)
    assert resnet.embedding_widths == [2048]
    # As published: 25.6 million, less the 2,049,000 of the top for ImageNet.
    assert resnet.n_parameters == 25_636_712 - 2_049_000 + 5 * 2049
    assert list(resnet.model.output) == ["avg_pool", "flatten"]


@pytest.mark.parametrize("name", ["fashionnet", "smallervggnet", "resnet50"])
def test_a_network_is_built_down_to_its_minimum_and_not_below(name):
    minimum = NETWORKS[name].min_size_px
    assert build(name, size_px=minimum).input_size == (minimum, minimum)
    with pytest.raises(ValueError, match=r"zero or negative|at least 32x32"):
        build(name, size_px=minimum - 1)


def test_weights_are_drawn_by_the_seed_and_can_be_put_back():
    first, again, other = (
        build("smallervggnet", size_px=16, seed=seed).get_weights() for seed in (1, 1, 2)
    )
    np.testing.assert_equal(first, again)
    assert any((a != b).any() for a, b in zip(first, other, strict=True))


def test_variables_are_copied_out_and_put_back(tiny_pair):
    before = tiny_pair.get_weights()
    # Kernels and biases of two outputs, and of `same`.
    assert [each.shape for each in before] == [(12, 3), (3,), (12, 2), (2,), (1, 1), (1,)]
    tiny_pair.set_weights([each + 1 for each in before])
    np.testing.assert_allclose(tiny_pair.get_weights()[5], before[5] + 1)
    tiny_pair.set_weights(before)
    np.testing.assert_equal(tiny_pair.get_weights(), before)
    with pytest.raises(ValueError, match="zip"):
        tiny_pair.set_weights(before[:-1])


def test_rows_are_scores_and_behind_them_the_embedding(tiny):
    seen = images(5, TINY_PX)
    kernels = [np.linspace(-1, 1, 36).reshape(12, 3), np.linspace(1, -1, 24).reshape(12, 2)]
    biases = [np.array([0.5, -0.5, 0.0]), np.array([1.0, 2.0])]
    tiny.set_score_layers([(k.astype(np.float32), b) for k, b in zip(kernels, biases, strict=True)])
    rows = tiny.score_and_embed(seen)
    flat = seen.reshape(5, -1).astype(float)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows[:, :3], flat @ kernels[0] + biases[0], rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(rows[:, 3:5], flat @ kernels[1] + biases[1], rtol=1e-5, atol=1e-3)
    np.testing.assert_array_equal(rows[:, 5:], flat)
    np.testing.assert_allclose(
        tiny.score_features(flat.astype(np.float32)), rows[:, :5], rtol=1e-5, atol=1e-3
    )


def test_many_images_are_read_in_batches_of_one_size(tiny):
    seen = images(7, TINY_PX)
    rows = tiny.score_and_embed_in_batches(seen.__getitem__, 7, 3)
    np.testing.assert_allclose(rows, tiny.score_and_embed(seen), rtol=1e-5)
    assert tiny.score_and_embed_in_batches(seen.__getitem__, 0, 3).shape == (0, 5 + TINY_WIDTH)


def test_the_models_probabilities_are_those_of_the_scores(fashionnet):
    seen = images(3)
    rows = fashionnet.score_and_embed(seen)
    probabilities = fashionnet.model(seen.astype(np.float32), training=False)
    assert list(probabilities) == ["article", "color"]
    for output in fashionnet.outputs:
        np.testing.assert_allclose(
            np.asarray(probabilities[output.layer]),
            softmax(rows[:, output.columns], axis=1),
            atol=1e-5,
        )


def test_only_the_blocks_that_are_unfrozen_are_trained(finetune):
    model = finetune.backbone.model
    tops = 2 * len(finetune.outputs)
    finetune.unfreeze(0)
    assert not model.trainable_variables
    assert len(finetune.training_graph(None).trainable_variables) == tops

    finetune.unfreeze(2)
    expected = {
        id(variable)
        for layer in model.layers
        if layer.name.startswith(("block_15_", "block_16_", "Conv_1"))
        and not isinstance(layer, keras.layers.BatchNormalization)
        for variable in layer.weights
    }
    found = {id(variable) for variable in model.trainable_variables}
    assert found == expected
    assert len(finetune.training_graph(None).trainable_variables) == tops + len(expected)

    finetune.unfreeze(None)
    assert len(model.trainable_variables) > 100
    assert any("gamma" in variable.path for variable in model.trainable_variables)
    finetune.unfreeze(0)
    assert not model.trainable_variables


def test_more_blocks_than_there_are_cannot_be_unfrozen(finetune):
    with pytest.raises(UsageError, match=r"mobilenet_v2 has .* blocks, so that the last 99 cannot"):
        finetune.unfreeze(99)


@pytest.mark.parametrize("n_blocks", [0, 2])
def test_in_training_a_backbone_computes_as_at_inference(finetune, n_blocks):
    seen = images(3)
    finetune.unfreeze(n_blocks)
    before = finetune.get_weights()
    scores = finetune.training_graph(None)(seen, training=True)
    rows = finetune.score_and_embed(seen)
    for output in finetune.outputs:
        np.testing.assert_allclose(
            np.asarray(scores[output.layer]), rows[:, output.columns], rtol=1e-3, atol=1e-4
        )
    # Nor do the statistics move.
    np.testing.assert_equal(finetune.get_weights(), before)


def test_the_pair_network_drops_half_of_the_embedding_and_shares_its_backbone():
    network = build("pair")
    network.unfreeze(0)
    graph = network.training_graph(None)
    assert sorted(graph.output) == [
        "article", "article_partner", "color", "color_partner", "same",
    ]  # fmt: skip
    assert [x.rate for x in graph.layers if isinstance(x, keras.layers.Dropout)] == [0.5]
    # The weights of one network and of `same`, none twice.
    assert len(graph.trainable_variables) == 2 * 2 + 2
    assert network.same.get_weights()[0] < 0
    # One image is enough where it is not trained.
    assert [tuple(each.shape) for each in network.model.inputs] == [(None, PX, PX, 3)]


def test_images_are_the_less_the_same_the_further_apart_they_are(tiny_pair):
    seen = np.zeros((6, TINY_PX, TINY_PX, 3), np.uint8)
    seen[:] = np.array([0, 1, 2, 4, 40, 250])[:, None, None, None]
    partners = np.array([0, 0, 0, 0, 0, 0], np.int32)
    graph = tiny_pair.training_graph(None)
    scores = graph({"seen": seen, "partners": partners}, training=False)
    same = np.asarray(scores["same"])[:, 0]
    # At the start 1 less the root mean square of the differences.
    np.testing.assert_allclose(same, 1.0 - seen[:, 0, 0, 0], atol=1e-4)
    np.testing.assert_allclose(
        np.asarray(scores["article_partner"]), np.tile(np.asarray(scores["article"])[0], (6, 1))
    )
    flat = seen.reshape(6, -1)
    slope, intercept = (float(np.ravel(each)[0]) for each in tiny_pair.same.get_weights())
    probabilities = same_probability(flat, flat[partners], slope, intercept)
    np.testing.assert_allclose(probabilities, expit(same.astype(float)), rtol=1e-3)


def test_what_is_trained_on_frozen_features_is_what_is_trained_on_pixels(tiny_pair):
    seen = images(4, TINY_PX)
    partners = np.array([1, 2, 3, 0], np.int32)
    of_pixels = tiny_pair.training_graph(None)({"seen": seen, "partners": partners})
    features = seen.reshape(4, -1).astype(np.float32)
    of_features = tiny_pair.features_graph()({"seen": features, "partners": partners})
    assert sorted(of_features) == sorted(of_pixels)
    for name, scores in of_features.items():
        np.testing.assert_allclose(np.asarray(scores), np.asarray(of_pixels[name]), rtol=1e-5)


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


@pytest.mark.parametrize("task", ["per-attribute", "multi-label"])
def test_a_top_begins_as_the_logistic_head(task):
    n, rng = 120, np.random.default_rng(0)
    features = rng.normal(size=(n, TINY_WIDTH)).astype(np.float32) * 20 + 100
    # One feature says nothing, and one is of another scale.
    features[:, 0], features[:, 1] = 7, features[:, 1] / 100
    codes = (features[:, 2] > 100).astype(int) + (features[:, 3] > 90)
    # A label that all images have, one that tells them apart, and one that none has.
    sets = [("all", "some") if code else ("all",) for code in codes] + [("no",)]
    halves = [(f"{code > 0}",) if k % 9 else None for k, code in enumerate(codes)]
    truth = {
        "three": labels_of("three", [(f"{code}",) for code in codes]),
        "two": labels_of("two", halves),
        "set": labels_of("set", sets).take(np.arange(n)),
    }
    settings = NetworkSettings.of("finetune", task=task)
    outputs = make_outputs(truth, settings)
    groups = np.arange(n)
    network = build_tiny(truth)
    network.set_score_layers(fit_logistic_top(features, truth, groups, outputs, seed=0))
    scores = network.score_features(features)
    columns = dict.fromkeys(truth, ((0, TINY_WIDTH),))
    questions = make_questions(truth, "per-attribute", columns, groups).questions
    for question, output in zip(questions, outputs, strict=True):
        own = scores[:, output.columns]
        asked = replace(question, exclusive=output.softmax)
        rows, settings = np.arange(len(question.rows)), HeadSettings.of("logistic")
        head = fit_one_head(features, asked, rows, settings)
        found = softmax(own, axis=1) if output.softmax else expit(own)
        expected = head.predict_proba(features)
        np.testing.assert_allclose(found, expected, atol=2e-4)
        if output.exclusive:
            np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))


LITTLE = Augmentation(rotation=25, shift=0.1, shear=0.2, zoom=0.2)


def test_augmentation_changes_each_image_in_training_alone():
    augment = build_augmentation(LITTLE)
    smooth = np.broadcast_to(np.linspace(0, 255, 16, dtype=np.float32)[:, None, None], (16, 16, 3))
    seen = np.stack([smooth] * 4 + [np.full((16, 16, 3), 77, np.float32)])
    np.testing.assert_array_equal(np.asarray(augment(seen, training=False)), seen)
    changed = np.asarray(augment(seen, training=True))
    assert changed.dtype == np.float32
    assert changed.shape == seen.shape
    assert changed.min() >= -1e-3
    assert changed.max() <= 255 + 1e-3
    for first in range(4):
        assert np.abs(changed[first] - smooth).mean() > 1
        assert np.abs(changed[first] - changed[(first + 1) % 4]).mean() > 1
    # What comes into view is the edge repeated: one shade stays one shade.
    np.testing.assert_allclose(changed[4], 77, atol=1e-3)


def test_augmentation_is_as_much_as_it_says():
    names = [type(each).__name__ for each in build_augmentation(LITTLE).layers]
    assert names == [
        "RandomRotation",
        "RandomTranslation",
        "RandomZoom",
        "RandomShear",
        "RandomFlip",
    ]
    plain = build_augmentation(Augmentation(rotation=30, shift=0.2, zoom=0.1, flip=False))
    rotation, shift, zoom = plain.layers
    np.testing.assert_allclose(rotation.factor, [-30 / 360, 30 / 360])
    assert (shift.height_factor, shift.width_factor) == (0.2, 0.2)
    assert (zoom.height_factor, zoom.width_factor) == (0.1, 0.1)


def save(network, tmp_path):
    path = tmp_path / "run-7" / "network.keras"
    path.parent.mkdir(exist_ok=True)
    network.model.save(path)
    return path


def outputs_of(network):
    return {output.layer: output.n_classes for output in network.outputs}


def test_a_saved_network_reads_as_it_did(fashionnet, tmp_path):
    # What was trained on before shares its layers and is no part of the file.
    fashionnet.training_graph(build_augmentation(LITTLE))
    path, seen = save(fashionnet, tmp_path), images(5)
    engine = TrainedNetwork(path, outputs_of(fashionnet), batch_size=2)
    assert engine.input_size == (PX, PX)
    assert engine.n_features == 5 + 256 + 128
    rows = engine.embed(seen)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, fashionnet.score_and_embed(seen), rtol=1e-4, atol=1e-5)


def test_an_embedding_that_all_outputs_read_is_read_once(tiny, tmp_path):
    saved = SavedNetwork(save(tiny, tmp_path), "finetune", TINY_PX, outputs_of(tiny))
    engine, seen = saved.open_engine(4), images(3, TINY_PX)
    assert engine.n_features == 5 + TINY_WIDTH
    np.testing.assert_allclose(engine.embed(seen), tiny.score_and_embed(seen), rtol=1e-5)


def test_layers_of_the_trunk_make_way_for_attributes_of_their_name(tmp_path):
    labels = {"flatten": GARMENTS["color"], "pixels": GARMENTS["article"]}
    network = build_tiny(labels, layer=keras.layers.Flatten(name="flatten"))
    seen = images(3, TINY_PX)
    engine = TrainedNetwork(save(network, tmp_path), outputs_of(network), 3)
    np.testing.assert_allclose(engine.embed(seen), network.score_and_embed(seen), rtol=1e-5)


def test_half_precision_is_saved_and_loaded(tmp_path):
    before = keras.config.dtype_policy().name
    network = build("smallervggnet", size_px=16, precision="bfloat16")
    assert keras.config.dtype_policy().name == before
    assert network.trunk.compute_dtype == "bfloat16" or any(
        layer.compute_dtype == "bfloat16" for layer in network.trunk.layers
    )
    # Scores are float32, and so are all weights.
    assert {each.dtype.name for each in network.get_weights()} == {"float32"}
    assert {keras.backend.standardize_dtype(x.dtype) for x in network.model.outputs} == {"float32"}
    seen = images(3, 16)
    engine = TrainedNetwork(save(network, tmp_path), outputs_of(network), 3)
    rows = engine.embed(seen)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, network.score_and_embed(seen), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "outputs", [{"article": 3, "color": 5}, {"article": 3, "breed": 2}, {"nothing": 1}]
)
def test_other_outputs_than_the_run_says_are_damage(tiny, tmp_path, outputs):
    path = save(tiny, tmp_path)
    with pytest.raises(RunError, match=r"Run 'run-7' is damaged: .* has other outputs"):
        TrainedNetwork(path, outputs, 2)


def damaged(data):
    """The same archive, of which a member is none of Keras'."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            new.writestr(name, b"{}" if name == "config.json" else old.read(name))
    return file.getvalue()


@pytest.mark.parametrize(
    "damage",
    [lambda _: b"garbage", lambda data: data[: len(data) // 2], damaged, lambda _: None],
    ids=["garbage", "half", "no-config", "missing"],
)
def test_a_damaged_network_is_told(tiny, tmp_path, damage):
    path = save(tiny, tmp_path)
    data = damage(path.read_bytes())
    path.unlink() if data is None else path.write_bytes(data)
    with pytest.raises(RunError) as caught:
        TrainedNetwork(path, outputs_of(tiny), 2)
    text = str(caught.value)
    assert text.startswith(f"Run 'run-7' is damaged: {path} cannot be read (")
    assert "Train it again" in text
    assert "\n" not in text


def rewritten(path, change, compression=zipfile.ZIP_STORED):
    """The network at a path with other members: `change` maps their contents by name."""
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", compression) as new:
        for name, content in members.items():
            new.writestr(name, content)


def read_a_file(members):
    """Keras itself builds this layer in safe mode, and reads the file meanwhile."""
    vocabulary = {"vocabulary": "/etc/passwd"}
    config = {"module": "keras.layers", "class_name": "StringLookup", "config": vocabulary}
    members["config.json"] = json.dumps(config).encode()


def nest_deeply(members):
    members["config.json"] = b"[" * 100_000


def link_elsewhere(members):
    content = io.BytesIO(members["model.weights.h5"])
    with h5py.File(content, "r+") as file:
        file["more"] = h5py.ExternalLink("/etc/secret.h5", "weights")
    members["model.weights.h5"] = content.getvalue()


@pytest.mark.parametrize(
    ("change", "compression", "message"),
    [
        (read_a_file, zipfile.ZIP_STORED, "keras.layers.StringLookup belongs to no network"),
        (nest_deeply, zipfile.ZIP_STORED, "recursion depth"),
        (link_elsewhere, zipfile.ZIP_STORED, "'/more' is a link"),
        (dict, zipfile.ZIP_DEFLATED, "it is compressed"),
    ],
)
def test_files_that_keras_would_not_write_are_refused(tiny, tmp_path, change, compression, message):
    path = save(tiny, tmp_path)
    rewritten(path, change, compression)
    with pytest.raises(RunError, match=r"Run 'run-7' is damaged: .* cannot be read") as caught:
        TrainedNetwork(path, outputs_of(tiny), 2)
    assert message in str(caught.value)


MODULES = {spec.module: spec for spec in BACKBONES.values() if spec.kind == "network"}


@pytest.mark.parametrize("module", MODULES)
def test_preprocessing_of_every_backbone_is_known(tmp_path, module):
    pixels = keras.Input((32, 32, 3))
    path = tmp_path / "network.keras"
    keras.Model(pixels, preprocess(MODULES[module], pixels)).save(path)
    require_known_classes(path)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "nasnet_mobile", "convnext_tiny"])
def test_layers_of_backbones_are_known(tmp_path, name):
    constructor = getattr(keras.applications, find_backbone(name).constructor)
    path = tmp_path / "network.keras"
    constructor(weights=None, include_top=False, pooling="max").save(path)
    require_known_classes(path)


def test_code_in_a_file_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layer = keras.layers.Lambda(lambda x: __import__("pathlib").Path("trace").touch() or x)
    path, trace = tmp_path / "network.keras", tmp_path / "trace"
    keras.Sequential([keras.Input((3,)), layer]).save(path)
    # Where that is allowed, to load it is to run it.
    keras.saving.load_model(path, safe_mode=False)
    assert trace.exists()
    trace.unlink()
    with pytest.raises(RunError, match="cannot be read"):
        TrainedNetwork(path, {"article": 3}, 2)
    assert not trace.exists()
