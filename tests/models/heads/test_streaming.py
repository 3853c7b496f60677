import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

from featurepipe import metrics
from featurepipe.errors import FitError, UsageError
from featurepipe.manifest import Labels
from featurepipe.models.answers.row_chunks import RowChunks
from featurepipe.models.heads.fit_memory import FitMemory, parse_memory
from featurepipe.models.heads.fitting import fit_heads
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.heads.linear_form import linear_form
from featurepipe.models.heads.row_passes import RowPasses, choose_passes, draw_chunks
from featurepipe.models.heads.streaming import plan_chunks, stream_heads
from kept_heads import keep

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


class Rows:
    """Rows that are in memory, and which of them were read."""

    def __init__(self, X):
        self.X, self.read_at_once = X, []

    @property
    def n_features(self):
        return self.X.shape[1]

    def __len__(self):
        return len(self.X)

    def read(self, rows):
        self.read_at_once.append(len(rows))
        return self.X[rows]


def labels_of(name, codes, n_classes, labelled=None):
    labelled = np.ones(len(codes), bool) if labelled is None else labelled
    indicator = (codes[:, None] == np.arange(n_classes)) & labelled[:, None]
    return Labels(name, tuple(f"{name} {k}" for k in range(n_classes)), True, indicator, labelled)


def make_images(n=300, seed=0):
    """Features that show a colour and a shape, sorted by colour as folders are."""
    means = np.random.default_rng(100).normal(0, 0.25, (5, 64))
    rng = np.random.default_rng(seed)
    colors, shapes = np.sort(rng.integers(3, size=n)), rng.integers(2, size=n)
    X = 0.5 + means[colors] + means[3 + shapes] + rng.normal(0, 0.5, (n, 64))
    X[:, 5] = 1
    return X.astype(np.float32), {
        "color": labels_of("color", colors, 3),
        "shape": labels_of("shape", shapes, 2, rng.random(n) < 0.9),
    }


def stream(X, labels, chunk_rows=150, columns=None, groups=None, **settings):
    groups = np.arange(len(X)) if groups is None else groups
    settings = HeadSettings.of(**{"n_folds": 2, **settings})
    rows = RowChunks(Rows(X), chunk_rows)
    return stream_heads(rows, labels, groups, settings, columns=columns, n_jobs=1)[:2]


def mean_log_loss(labels, scores):
    rows = labels.labelled
    return metrics.log_losses(labels.codes[rows], scores[rows]).mean()


TWO_BLOCKS = dict.fromkeys(("color", "shape"), ((0, 24), (24, 64)))


@pytest.mark.parametrize(
    ("task", "columns"),
    [
        ("per-attribute", None),
        ("per-attribute", TWO_BLOCKS),
        ("joint", None),
        ("multi-label", None),
    ],
)
def test_streamed_heads_are_nearly_those_of_memory(task, columns):
    # Of few rows the draws of members differ by more than that.
    X, labels = make_images(1500)
    X_test, truth = make_images(1500, seed=1)
    settings = HeadSettings.of(task=task, n_folds=2)
    model, out_of_fold, _ = fit_heads(
        X, labels, np.arange(len(X)), settings, columns=columns, n_jobs=1
    )
    streamed, streamed_out_of_fold = stream(X, labels, chunk_rows=500, task=task, columns=columns)
    whole, chunked = model.predict(X_test), streamed.predict(X_test)
    for name, each in truth.items():
        rows = each.labelled
        right, also = (
            np.mean(scores[name][rows].argmax(axis=1) == each.codes[rows])
            for scores in (whole, chunked)
        )
        assert also > right - 0.02
        if task != "multi-label":
            assert mean_log_loss(each, chunked[name]) < mean_log_loss(each, whole[name]) + 0.02
            assert (
                mean_log_loss(labels[name], streamed_out_of_fold[name])
                < mean_log_loss(labels[name], out_of_fold[name]) + 0.02
            )


def overlapping_images(n=1200, n_features=64, seed=0):
    """Colours and shapes that cannot be told for sure, by features of unequal variance."""
    means = np.random.default_rng(100).normal(0, 0.12, (5, n_features))
    rng = np.random.default_rng(seed)
    colors, shapes = np.sort(rng.integers(3, size=n)), rng.integers(2, size=n)
    X = means[colors] + means[3 + shapes] + rng.normal(0, 1, (n, n_features))
    X[:, 1:20] += X[:, :1]
    X = 0.5 + X * np.geomspace(1, 0.2, n_features)
    X[:, 5] = 1
    return X.astype(np.float32), {
        "color": labels_of("color", colors, 3),
        "shape": labels_of("shape", shapes, 2, rng.random(n) < 0.9),
    }


@pytest.mark.parametrize(
    ("task", "columns"),
    [
        ("per-attribute", None),
        ("per-attribute", TWO_BLOCKS),
        ("per-attribute", {"color": ((0, 24), (24, 64)), "shape": ((24, 64),)}),
        ("joint", None),
        ("multi-label", None),
    ],
)
def test_streamed_logistic_heads_are_those_of_memory(task, columns):
    X, labels = overlapping_images()
    X_test, _ = overlapping_images(1000, seed=1)
    settings = HeadSettings.of("logistic", task=task, n_folds=2)
    model, out_of_fold, _ = fit_heads(
        X, labels, np.arange(len(X)), settings, columns=columns, n_jobs=1
    )
    streamed, streamed_out_of_fold = stream(
        X, labels, chunk_rows=700, columns=columns, head="logistic", task=task
    )
    whole, chunked = model.predict(X_test), streamed.predict(X_test)
    for name in labels:
        np.testing.assert_allclose(chunked[name], whole[name], atol=1e-3)
        np.testing.assert_allclose(streamed_out_of_fold[name], out_of_fold[name], atol=1e-3)
    for name, head in model.heads.items():
        one, other = head.estimator[-1], streamed.heads[name].estimator[-1]
        assert (one.C_, one.kind_, one.n_features_in_) == (
            other.C_,
            other.kind_,
            other.n_features_in_,
        )
        assert one.coef_.dtype == other.coef_.dtype == np.float32
        np.testing.assert_allclose(other.coef_, one.coef_, atol=2e-3 * np.abs(one.coef_).max())
        np.testing.assert_allclose(other.intercept_, one.intercept_, atol=2e-3)
        tried = np.isfinite(other.losses_)
        # Not all values of C, and around the chosen one both neighbours.
        assert 3 <= tried.sum() < np.isfinite(one.losses_).sum()
        np.testing.assert_allclose(other.losses_[tried], one.losses_[tried], rtol=1e-3)


def test_streamed_logistic_heads_know_classes_that_a_sample_lacks():
    X, labels = overlapping_images()
    codes = labels["color"].codes.copy()
    # So rare that the first chunk has one of them at most.
    codes[[5, 234, 235, 700, 701, 1100]] = 3
    labels = {"color": labels_of("color", codes, 4)}
    settings = HeadSettings.of("logistic", n_folds=2, calibrate="none")
    model, *_ = fit_heads(X, labels, np.arange(len(X)), settings, n_jobs=1)
    streamed, _ = stream(X, labels, chunk_rows=40, head="logistic", calibrate="none")
    one, other = (each.heads["color"].estimator[-1] for each in (model, streamed))
    assert one.C_ == other.C_
    np.testing.assert_allclose(streamed.predict(X)["color"], model.predict(X)["color"], atol=1e-3)


def test_streamed_logistic_heads_without_rows_to_hold_out_take_the_usual_c():
    X, labels = overlapping_images(300)
    groups = np.arange(300) % 2
    options = {"groups": groups, "head": "logistic", "calibrate": "none"}
    streamed, _ = stream(X, {"color": labels["color"]}, chunk_rows=150, **options)
    settings = HeadSettings.of("logistic", n_folds=2, calibrate="none")
    model, *_ = fit_heads(X, {"color": labels["color"]}, groups, settings, n_jobs=1)
    for name, head in streamed.heads.items():
        assert head.estimator[-1].C_ == model.heads[name].estimator[-1].C_
    np.testing.assert_allclose(streamed.predict(X)["color"], model.predict(X)["color"], atol=1e-3)


def test_threads_change_no_streamed_logistic_head_and_it_has_a_linear_form():
    X, labels = overlapping_images(2500)
    settings = HeadSettings.of("logistic", n_folds=2)
    one, two = (
        stream_heads(
            RowChunks(Rows(X), 2400),
            labels,
            np.arange(2500),
            settings,
            columns=TWO_BLOCKS,
            n_jobs=n,
        )[0]
        for n in (1, 2)
    )
    np.testing.assert_array_equal(one.predict(X)["color"], two.predict(X)["color"])
    form = linear_form(one.heads["color"])
    np.testing.assert_allclose(
        form.scores(one.heads["color"].select(X)),
        one.heads["color"].decision_scores(X),
        atol=1e-3,
    )


def test_the_steps_before_learn_what_they_learn_in_memory():
    X, labels = make_images(200)
    model, *_ = fit_heads(
        X * 1e-6, labels, np.arange(200), HeadSettings.of(n_folds=2), columns=TWO_BLOCKS, n_jobs=1
    )
    streamed, _ = stream(X * 1e-6, labels, chunk_rows=70, columns=TWO_BLOCKS)
    for name in labels:
        prepared, also = (
            make_pipeline(*each.heads[name].estimator[:-1]).transform(X * 1e-6)
            for each in (model, streamed)
        )
        assert also.shape == (200, 63)
        np.testing.assert_allclose(also, prepared, rtol=1e-5)


def test_where_chunks_end_matters_little():
    X, labels = make_images(300)
    scores = [stream(X, labels, chunk_rows=n)[0].predict(X)["color"] for n in (100, 170, 300)]
    for other in scores[1:]:
        assert np.abs(other - scores[0]).mean() < 0.03


def test_rows_of_one_group_are_never_on_both_sides():
    # Colours are told by the group alone: who has seen its group mostly knows it (0.81 in memory).
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 5)
    colors = rng.integers(2, size=40)[groups]
    X = rng.normal(size=(40, 100))[groups] + rng.normal(0, 0.01, (200, 100))
    labels = {"color": labels_of("color", colors, 2)}
    for own, expected in ((groups, 0.65), (np.arange(200), 0.75)):
        _, out_of_fold = stream(X.astype(np.float32), labels, groups=own, chunk_rows=70)
        right = np.mean(out_of_fold["color"].argmax(axis=1) == colors)
        assert right < expected if own is groups else right > expected


@pytest.mark.parametrize("reads_ahead", [False, True])
def test_a_pass_gives_each_chunk_with_its_rows(reads_ahead):
    X, _ = make_images(100)
    chunks = draw_chunks(100, 30, seed=0)
    passes = RowPasses(Rows(X), chunks, 2, None, reads_ahead)
    for _ in range(2):
        read = list(passes)
        assert len(read) == len(chunks) == 4
        for (features, rows), chunk in zip(read, chunks, strict=True):
            np.testing.assert_array_equal(rows, chunk)
            np.testing.assert_array_equal(features, X[chunk])
    assert passes.n_done == 8


def test_an_error_of_reading_ahead_comes_with_its_chunk():
    class Damaged(Rows):
        def read(self, rows):
            if 99 in rows:
                raise OSError("damaged")
            return super().read(rows)

    chunks = [np.arange(50), np.arange(50, 100)]
    passes = iter(RowPasses(Damaged(make_images(100)[0]), chunks, 1, None, True))
    np.testing.assert_array_equal(next(passes)[1], chunks[0])
    with pytest.raises(OSError, match="damaged"):
        next(passes)


def test_chunks_hold_every_row_once_and_runs_of_all_of_the_store():
    chunks = draw_chunks(4003, 1000, seed=0)
    np.testing.assert_array_equal(np.sort(np.concatenate(chunks)), np.arange(4003))
    for chunk in chunks:
        assert 750 <= len(chunk) <= 1000
        assert np.all(np.diff(chunk) > 0)
        assert np.bincount(chunk // 1001, minlength=4).min() >= 100


def test_every_pass_reads_each_row_once_and_no_chunk_is_larger():
    X, labels = make_images(300)
    rows = Rows(X)
    done = []
    groups, settings = np.arange(300), HeadSettings.of(n_folds=2)
    model, *_ = stream_heads(
        RowChunks(rows, 100), labels, groups, settings, n_jobs=1,
        progress=lambda *numbers: done.append(numbers),
    )  # fmt: skip
    n_left_out = np.count_nonzero(~labels["shape"].labelled)
    # Two steps, 30 passes, and one over what folds hold out; then those without a label, before
    # and after calibration; and half a chunk for each attribute's rejector, with others for the
    # lowest p-values where labels are missing.
    n_passes = 2 + choose_passes(300) + 1
    for_rejectors = sum(rows.read_at_once) - 300 * n_passes - 2 * n_left_out
    assert 50 + 50 < for_rejectors <= 50 + 100
    assert max(rows.read_at_once) == 100
    assert done[-1] == (99, 99)
    np.testing.assert_allclose(
        RowChunks(rows, 70).predict(model)[0]["color"], model.predict(X)["color"], rtol=1e-5
    )


def test_threads_change_nothing_and_heads_can_be_kept():
    X, labels = make_images(120)
    groups, settings = np.arange(120), HeadSettings.of(n_folds=2)
    one, two = (
        stream_heads(RowChunks(Rows(X), 70), labels, groups, settings, n_jobs=n)[0] for n in (1, 2)
    )
    np.testing.assert_array_equal(one.predict(X)["color"], two.predict(X)["color"])
    kept = keep(two)
    np.testing.assert_array_equal(kept.predict(X)["color"], two.predict(X)["color"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X: X * np.where(np.arange(len(X)) == 7, np.nan, 1)[:, None], "1 of 120 .* row 7"),
        (np.ones_like, "Every feature is constant"),
    ],
)
def test_features_of_no_use(change, message):
    X, labels = make_images(120)
    with pytest.raises(FitError, match=message):
        stream(change(X).astype(np.float32), labels, chunk_rows=50)


def test_memory_holds_all_or_chunks_or_too_little():
    needed = FitMemory(n_rows=60_000, n_features=512, n_outputs=10, n_heads=6)
    assert needed.features == 122_880_000
    # Five matrices, eight float64 numbers a row and class, three float32 a weight of ten members.
    assert needed.in_memory() == 5 * 122_880_000 + 64 * 600_000 + 6 * 120 * 512 * 10
    settings = HeadSettings.of()
    assert plan_chunks(settings, needed, needed.in_memory()) is None
    assert needed.fits_within(needed.in_memory(2)) == 2
    chunk_rows = plan_chunks(settings, needed, 64_000_000)
    assert chunk_rows == (64_000_000 - 12 * 600_000 - 6 * 120 * 512 * 10) // (9 * 4 * 512)
    with pytest.raises(FitError, match=r"--memory 12MB is too little .* at least 15.7MB"):
        plan_chunks(settings, needed, 12_000_000)


def test_heads_with_a_kernel_take_memory_for_all_pairs_of_rows():
    shape = {"n_rows": 60_000, "n_features": 512, "n_outputs": 10, "n_heads": 6}
    without, needed = FitMemory(**shape), FitMemory(**shape, pairs=True)
    for n_fits in (1, 3):
        more = needed.in_memory(n_fits) - without.in_memory(n_fits)
        assert more == n_fits * 16 * 60_000**2
        assert needed.fits_within(needed.in_memory(n_fits)) == n_fits
    with pytest.raises(FitError, match=r"--head svm .* needs about 58.3GB, more than --memory 4GB"):
        plan_chunks(HeadSettings.of("svm"), needed, 4_000_000_000)


@pytest.mark.parametrize("settings", [{"head": "knn"}, {"solver": "sklearn"}])
def test_heads_that_cannot_be_streamed_say_what_they_need(settings):
    needed = FitMemory(n_rows=60_000, n_features=512, n_outputs=10, n_heads=6)
    with pytest.raises(FitError, match=r"needs about 656.5MB.* --head bagged-sgd or logistic"):
        plan_chunks(HeadSettings.of(**settings), needed, 64_000_000)


def test_tuning_is_not_left_out_unsaid_where_features_are_streamed():
    needed = FitMemory(n_rows=60_000, n_features=512, n_outputs=10, n_heads=6)
    with pytest.raises(FitError, match=r"--tune reads all features .* about 656.5MB"):
        plan_chunks(HeadSettings.of(tune=True), needed, 64_000_000)
    assert plan_chunks(HeadSettings.of(tune=True), needed, needed.in_memory()) is None


def test_logistic_heads_take_memory_for_principal_axes():
    shape = {"n_rows": 60_000, "n_features": 512, "n_outputs": 10, "n_heads": 6}
    others, needed = FitMemory(**shape), FitMemory(**shape, n_axes=2)
    besides = 6 * (200 - 120) * 512 * 10 + 4 * (2 + 4) * 512**2
    assert needed.in_memory() == others.in_memory() + others.features + besides
    chunk_rows = plan_chunks(HeadSettings.of("logistic"), needed, 100_000_000)
    assert chunk_rows == others.chunk_rows(100_000_000 - besides)
    labels = make_images(100)[1]
    for task, n_axes in (("per-attribute", 2), ("joint", 1)):
        assert FitMemory.of(labels, 64, task, 5, axes=True).n_axes == n_axes
    assert FitMemory.of(labels, 64, "joint", 5).n_axes == 0


@pytest.mark.parametrize("text", ["much", "-1GB", "0", "4 XB", ""])
def test_sizes_that_cannot_be_read(text):
    with pytest.raises(UsageError, match=r"cannot be read\. Expected a size such as 4GB"):
        parse_memory(text)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("head", ["bagged-sgd", "logistic"])
def test_memory_stays_within_the_budget(head):
    """A store of 16 MB, of which fitting in memory would take five times as much."""
    command = [sys.executable, BENCHMARKS / "stream.py", "--rows", "8000", "--features", "512"]
    command += ["--folds", "2", "--classes", "4", "--memory", "32MB", "--jobs", "1"]
    command += ["--head", head]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    peak = float(told.split("peak ")[1].split("MB")[0])
    # Slack for what Python and the allocator keep.
    assert peak < 32 + 8
    assert float(told.split("test ")[1].split()[0]) > 0.99
