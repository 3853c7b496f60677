import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from featurepipe.models.answers.rejection import MAX_BANK, N_NEIGHBOURS, fit_rejector
from kept_heads import keep

N_FEATURES = 12
CENTRES = 4 * np.eye(N_FEATURES)[:3]


def draw(n, seed, centres=CENTRES):
    """Images around three classes' centres, and a confidence that is any."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(len(centres), size=n)
    X = (centres[codes] + rng.normal(size=(n, N_FEATURES))).astype(np.float32)
    return X, np.eye(len(centres), dtype=bool)[codes], rng.random(n)


def fit(n=300, seed=0, **options):
    X, truth, confidence = draw(n, seed)
    return fit_rejector(X, truth, np.arange(n), confidence, **options).rejector


def test_novelty_is_the_distance_from_the_fifth_neighbour():
    X, _, _ = draw(300, 0)
    others, _, _ = draw(50, 1)
    neighbours = NearestNeighbors(n_neighbors=N_NEIGHBOURS).fit(normalize(X))
    expected = neighbours.kneighbors(normalize(others))[0][:, -1]
    np.testing.assert_allclose(fit().novelty(others), expected, atol=1e-3)


def test_distances_of_training_rows_leave_their_group_out():
    X, truth, confidence = draw(120, 0)
    groups = np.arange(120) // 3
    rejector = fit_rejector(X, truth, groups, confidence).rejector
    expected = []
    for group in range(40):
        rows = groups == group
        neighbours = NearestNeighbors(n_neighbors=N_NEIGHBOURS).fit(normalize(X[~rows]))
        expected += neighbours.kneighbors(normalize(X[rows]))[0][:, -1].tolist()
    np.testing.assert_allclose(rejector.distances, np.sort(expected), atol=1e-3)


def test_blocks_have_an_equal_say_at_any_scale():
    X, truth, confidence = draw(100, 0)
    other, _, _ = draw(100, 1)
    side_by_side, scaled = np.hstack([X, other[:, :4]]), np.hstack([X, 1e-6 * other[:, :4]])
    fitted = [
        fit_rejector(each, truth, np.arange(100), confidence, widths=(N_FEATURES, 4)).rejector
        for each in (side_by_side, scaled)
    ]
    np.testing.assert_allclose(fitted[0].distances, fitted[1].distances, atol=1e-3)
    halves = np.hstack([normalize(X), normalize(other[:, :4])])
    nearest = NearestNeighbors(n_neighbors=N_NEIGHBOURS + 1).fit(halves).kneighbors(halves)[0]
    np.testing.assert_allclose(fitted[0].distances, np.sort(nearest[:, -1]), atol=1e-3)


@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_the_wanted_coverage_of_new_images_is_kept(coverage):
    answered = []
    for seed in range(60):
        X, _, confidence = draw(500, 1000 + seed)
        p_values = fit(n=150, seed=seed).p_values(X, confidence)
        answered.append(np.mean(p_values > 1 - coverage))
    spread = np.std(answered) / np.sqrt(len(answered))
    assert coverage - 3 * spread - 0.005 < np.mean(answered) < coverage + 3 * spread + 0.015


def test_p_values_of_new_images_are_even():
    p_values = np.concatenate(
        [fit(seed=seed).p_values(draw(200, 50 + seed)[0], draw(200, 50 + seed)[2])
         for seed in range(20)]
    )  # fmt: skip
    for share in (0.1, 0.25, 0.5, 0.75):
        assert np.mean(p_values <= share) == pytest.approx(share, abs=0.04)


def test_the_coverage_is_kept_with_groups_of_near_duplicates():
    def draw_groups(n_groups, seed):
        X, truth, confidence = draw(n_groups, seed)
        rng = np.random.default_rng(seed)
        noise = 0.01 * rng.normal(size=(4 * n_groups, N_FEATURES))
        repeated = [np.repeat(each, 4, axis=0) for each in (X, truth, confidence)]
        return repeated[0] + noise, repeated[1], np.arange(4 * n_groups) // 4, repeated[2]

    answered = []
    for seed in range(30):
        X, truth, groups, confidence = draw_groups(100, seed)
        new, _, _, new_confidence = draw_groups(100, 500 + seed)
        rejector = fit_rejector(X, truth, groups, confidence).rejector
        answered.append(np.mean(rejector.p_values(new, new_confidence) > 0.1))
    assert np.mean(answered) == pytest.approx(0.9, abs=0.03)


def test_foreign_images_are_told_by_their_distance():
    foreign, _, confidence = draw(100, 2, centres=8 * np.eye(N_FEATURES)[6:9])
    p_values = fit().p_values(foreign, confidence)
    assert np.mean(p_values <= 0.05) > 0.95


def test_doubtful_answers_are_told_by_their_confidence():
    X, _, _ = draw(100, 3)
    rejector = fit()
    doubtful = rejector.p_values(X, np.full(100, -0.1))
    assert doubtful.max() < 0.05
    assert np.median(rejector.p_values(X, np.ones(100))) > 0.3


def test_p_values_fall_with_distance_and_rise_with_confidence():
    rejector = fit()
    X, _, _ = draw(60, 4)
    nearest_first = X[np.argsort(rejector.novelty(X))]
    p_values = rejector.p_values(nearest_first, np.full(60, 0.9))
    assert (np.diff(p_values) <= 0).all()
    assert p_values[-1] < p_values[0]
    p_values = rejector.p_values(nearest_first[:1].repeat(60, axis=0), np.linspace(0, 1, 60))
    assert (np.diff(p_values) >= 0).all()
    assert p_values[-1] > p_values[0]


def test_the_bank_keeps_rare_classes():
    n = 3 * MAX_BANK
    X, _, confidence = draw(n, 0)
    truth = np.zeros((n, 2), bool)
    truth[:8, 0], truth[8:, 1] = True, True
    X[:8] = 4 * np.eye(N_FEATURES)[10] + 0.01 * X[:8]
    rejector = fit_rejector(X, truth, np.arange(n), confidence).rejector
    assert len(rejector.bank) == MAX_BANK
    assert np.isclose(rejector.bank[:, 10], 1, atol=0.05).sum() == 8
    assert rejector.novelty(X[:8]).max() < 0.05


def test_images_without_any_label_are_a_kind_of_their_own():
    n = 2 * MAX_BANK
    X, _, confidence = draw(n, 0)
    truth = np.ones((n, 1), bool)
    truth[:5] = False
    X[:5] = 4 * np.eye(N_FEATURES)[10]
    bank = fit_rejector(X, truth, np.arange(n), confidence).rejector.bank
    assert np.isclose(bank[:, 10], 1, atol=0.05).sum() == 5


def test_the_same_seed_draws_the_same_bank():
    n = 2 * MAX_BANK
    np.testing.assert_array_equal(fit(n, seed=0).bank, fit(n, seed=0).bank)
    X, truth, confidence = draw(n, 0)
    other = fit_rejector(X, truth, np.arange(n), confidence, seed=1).rejector
    assert not np.array_equal(other.bank, fit(n).bank)


@pytest.mark.parametrize("n", [1, 3])
def test_fewer_rows_than_neighbours_reject_nothing(n):
    X, _, confidence = draw(20, 1)
    assert (fit(n).p_values(X, confidence) > 0.05).all()


def test_rows_of_a_single_group_have_no_distance_to_go_by():
    X, truth, confidence = draw(50, 0)
    rejector = fit_rejector(X, truth, np.zeros(50, np.intp), confidence).rejector
    assert np.isinf(rejector.distances).all()
    foreign = 100 * draw(20, 1)[0]
    assert (rejector.p_values(foreign, np.ones(20)) > 0.9).all()


def test_features_of_nothing_but_zeros_are_far_from_all():
    rejector = fit()
    assert rejector.novelty(np.zeros((1, N_FEATURES), np.float32))[0] == pytest.approx(1, abs=1e-3)


def test_a_saved_rejector_says_the_same():
    rejector = fit()
    loaded = keep(rejector)
    X, _, confidence = draw(30, 1)
    np.testing.assert_array_equal(loaded.p_values(X, confidence), rejector.p_values(X, confidence))
    assert loaded.bank.dtype == np.float16


def test_no_images_have_no_p_values():
    assert fit().p_values(np.zeros((0, N_FEATURES), np.float32), np.zeros(0)).shape == (0,)


def test_p_values_are_known_from_ranks_by_hand():
    # The distances of these rows are all infinite: they are of one group.
    X, truth, _ = draw(9, 0)
    confidence = np.arange(9) / 10
    fitted = fit_rejector(X, truth, np.zeros(9, np.intp), confidence)
    # A new image counts as a group of nine.
    np.testing.assert_allclose(fitted.p_values, np.arange(9, 18) / 18)
    new = fitted.rejector.p_values(X[:4], np.array([-1, 0, 0.35, 2]))
    np.testing.assert_allclose(new, np.array([9, 10, 13, 17]) / 18)


def test_rows_without_a_label_get_the_p_values_of_new_images():
    X, truth, confidence = draw(120, 0)
    labelled = np.arange(120) % 3 > 0
    fitted = fit_rejector(X, truth, np.arange(120), confidence, labelled=labelled)
    alone = fit_rejector(X[labelled], truth[labelled], np.arange(80), confidence[labelled])
    np.testing.assert_array_equal(fitted.rejector.bank, alone.rejector.bank)
    np.testing.assert_array_equal(fitted.p_values[labelled], alone.p_values)
    others = alone.rejector.p_values(X[~labelled], confidence[~labelled])
    np.testing.assert_array_equal(fitted.p_values[~labelled], others)
