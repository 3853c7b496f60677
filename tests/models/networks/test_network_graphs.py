"""Networks as Keras computes them: what is built, frozen and trained on."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, softmax

from featurepipe.errors import UsageError
from featurepipe.manifest.labels import labels_of
from featurepipe.models.answers.questions import make_questions
from featurepipe.models.heads.fitting import fit_one_head
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.networks.logistic_top import fit_logistic_top
from featurepipe.models.networks.network_settings import NetworkSettings
from featurepipe.models.networks.outputs import make_outputs
from featurepipe.models.networks.recipes import NETWORKS, Augmentation
from featurepipe.models.networks.verification import same_probability
from small_networks import (
    GARMENTS,
    LITTLE,
    PX,
    TINY_PX,
    TINY_WIDTH,
    build,
    build_tiny,
    images,
)

keras = pytest.importorskip("keras")

from featurepipe.models.networks.layers import build_augmentation  # noqa: E402

pytestmark = [
    pytest.mark.keras,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:keras"),
]


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
