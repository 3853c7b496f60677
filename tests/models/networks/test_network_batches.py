"""What an epoch is made of: batches, partners, and what Keras is told of them."""

import numpy as np
import pytest

from featurepipe.errors import FitError
from featurepipe.manifest.labels import labels_of
from featurepipe.models.networks.batch_plan import (
    Batch,
    plan_batches,
    plan_pairs,
    require_pairs,
)
from featurepipe.models.networks.batches import Batches
from featurepipe.models.networks.network_settings import NetworkSettings
from featurepipe.models.networks.outputs import make_outputs, make_targets

pytestmark = pytest.mark.keras

UNKNOWN = -1


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(("n_rows", "batch_size"), [(1, 8), (8, 8), (9, 8), (100, 32), (65, 2)])
def test_all_images_come_once_in_batches_of_nearly_one_size(n_rows, batch_size):
    batches = plan_batches(n_rows, batch_size, rng())
    sizes = [len(each.images) for each in batches]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert len(batches) == -(-n_rows // batch_size)
    np.testing.assert_array_equal(
        np.sort(np.concatenate([b.images for b in batches])), range(n_rows)
    )
    assert all(each.partners is None for each in batches)


def test_the_order_is_drawn():
    first, again, other = (
        np.concatenate([batch.images for batch in plan_batches(50, 8, rng(seed))])
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first != np.arange(50)).any()


def shares_of(kinds, batches):
    """How many images have a partner of their kind, of those of which it is known."""
    same = [kinds[batch.images] == kinds[batch.images[batch.partners]] for batch in batches]
    return np.concatenate(same)[np.concatenate([kinds[batch.images] for batch in batches]) >= 0]


@pytest.mark.parametrize("batch_size", [2, 5, 16, 300])
def test_partners_are_others_of_the_same_batch(batch_size):
    kinds = rng(1).integers(-1, 20, 203)
    batches = plan_pairs(kinds, batch_size, 0.5, rng())
    sizes = [len(each.images) for each in batches]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    np.testing.assert_array_equal(np.sort(np.concatenate([b.images for b in batches])), range(203))
    for batch in batches:
        places = np.arange(len(batch.images))
        assert batch.partners.dtype == np.int32
        assert set(batch.partners) <= set(places)
        assert (batch.partners != places).all() or len(places) == 1


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.75])
@pytest.mark.parametrize(("n_kinds", "batch_size"), [(4, 32), (60, 12), (200, 16)])
def test_so_many_partners_show_the_same_however_many_kinds_there_are(n_kinds, batch_size, share):
    kinds = np.repeat(np.arange(n_kinds), 6)
    same = shares_of(kinds, plan_pairs(kinds, batch_size, share, rng()))
    assert same.mean() == pytest.approx(share, abs=0.06)


def test_all_partners_show_the_same_where_couples_are_not_parted():
    kinds = np.repeat(np.arange(30), 4)
    batches = plan_pairs(kinds, 12, 1.0, rng())
    assert shares_of(kinds, batches).all()


def test_an_image_alone_of_its_kind_has_a_partner_of_another():
    kinds = np.array([0, 0, 0, 0, 0, 1])
    (batch,) = plan_pairs(kinds, 6, 1.0, rng())
    place = int(np.flatnonzero(batch.images == 5)[0])
    assert kinds[batch.images[batch.partners[place]]] == 0
    # And where all are of one kind, that of all partners is no other, whatever was asked for.
    (alike,) = plan_pairs(np.zeros(5, int), 8, 0.0, rng())
    assert (alike.partners != np.arange(5)).all()


def test_partners_are_drawn_anew_and_by_the_seed():
    kinds = np.repeat(np.arange(10), 5)
    first, again, other = (plan_pairs(kinds, 25, 0.5, rng(seed)) for seed in (0, 0, 1))
    for ours, theirs in zip(first, again, strict=True):
        np.testing.assert_array_equal(ours.images, theirs.images)
        np.testing.assert_array_equal(ours.partners, theirs.partners)
    assert (first[0].partners != other[0].partners).any()


@pytest.mark.parametrize(
    ("kinds", "batch_size"), [([0, 0, 1, 1], 4), ([0, 0, 1, UNKNOWN], 8), ([3, 2, 1, 1, 0], 4)]
)
def test_pairs_of_both_kinds_can_be_made(kinds, batch_size):
    require_pairs(np.array(kinds), batch_size)


@pytest.mark.parametrize(
    ("kinds", "batch_size", "n_combinations", "n_most"),
    [
        ([0, 0, 1, 1], 3, 2, 2),
        ([0, 0, 1], 8, 2, 2),
        ([0, 0, 0, 0], 8, 1, 4),
        ([0, 1, 2, 3], 8, 4, 1),
        (4 * [UNKNOWN], 8, 0, 0),
    ],
)
def test_too_few_images_for_pairs_are_told(kinds, batch_size, n_combinations, n_most):
    with pytest.raises(FitError) as caught:
        require_pairs(np.array(kinds), batch_size)
    assert str(caught.value) == (
        f"Pairs cannot be formed: {len(kinds)} images show {n_combinations} different label "
        f"combinations, with at most {n_most} images of one, in batches of {batch_size}. Pairs "
        "need batches of 4, 2 combinations, and 2 images of one. Add images, or use `train "
        "finetune`."
    )


BREEDS = [("a",), ("b",), ("a",), None, ("b",), ("c",)]
LABELS = {"a/b": labels_of("a/b", BREEDS)}
SETTINGS = NetworkSettings.of("pair")
TARGETS, OUTPUTS = make_targets(LABELS, SETTINGS), make_outputs(LABELS, SETTINGS)


def read(rows):
    return np.stack([np.full((2, 2, 3), row, np.uint8) for row in rows])


def test_a_batch_is_pixels_truth_and_weights_by_layer():
    batches = Batches([Batch(np.array([3, 1])), Batch(np.array([5]))], read, OUTPUTS, TARGETS)
    assert len(batches) == 2
    seen, truth, weights = batches[0]
    np.testing.assert_array_equal(seen[:, 0, 0, 0], [3, 1])
    np.testing.assert_array_equal(truth["a_b"], [[0, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(weights["a_b"], [0, 1])
    assert list(truth) == list(weights) == ["a_b"]


def test_a_batch_of_pairs_says_what_partners_are_and_whether_they_are_the_same():
    rows = np.array([0, 2, 4, 3, 5])
    partners = np.array([1, 2, 3, 0, 4], np.int32)
    inputs, truth, weights = Batches([Batch(rows, partners)], read, OUTPUTS, TARGETS)[0]
    assert sorted(inputs) == ["partners", "seen"]
    np.testing.assert_array_equal(inputs["seen"][:, 1, 1, 2], rows)
    np.testing.assert_array_equal(inputs["partners"], partners)
    assert sorted(truth) == sorted(weights) == ["a_b", "a_b_partner", "same"]
    np.testing.assert_array_equal(truth["a_b_partner"], truth["a_b"][partners])
    np.testing.assert_array_equal(weights["a_b"], [1, 1, 1, 0, 1])
    np.testing.assert_array_equal(weights["a_b_partner"], [1, 1, 0, 1, 1])
    # a and a; a and b; b and one that is not known, and the other way round; c and itself.
    np.testing.assert_array_equal(truth["same"][:2], [[1], [0]])
    np.testing.assert_array_equal(weights["same"], [1, 1, 0, 0, 0])


def test_what_is_planned_is_labelled_right():
    breeds = [None if k % 10 == 9 else (f"{k % 7}",) for k in range(90)]
    labels = {"breed": labels_of("breed", breeds)}
    targets, outputs = make_targets(labels, SETTINGS), make_outputs(labels, SETTINGS)
    plan = plan_pairs(targets.identities, 14, 0.5, rng())
    batches = Batches(plan, read, outputs, targets)
    for number, batch in enumerate(plan):
        _, truth, weights = batches[number]
        own = [breeds[row] for row in batch.images]
        others = [breeds[row] for row in batch.images[batch.partners]]
        pairs = list(zip(own, others, strict=True))
        known = [first is not None and second is not None for first, second in pairs]
        np.testing.assert_array_equal(weights["same"], known)
        for pair, same, is_known in zip(pairs, truth["same"][:, 0], known, strict=True):
            assert not is_known or same == (pair[0] == pair[1])
