"""predict --explain: the evidence of each answer sums to its score, whatever the head reads."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.special import expit, logit, softmax
from sklearn.naive_bayes import GaussianNB

import featurepipe
from command_line import fail, succeed
from featurepipe.errors import UsageError
from featurepipe.models.answers.calibration import SoftmaxCalibrator
from featurepipe.models.heads.registry import GRIDS
from featurepipe.output_folders import MARKER
from featurepipe.runs.run_folder import load_run
from featurepipe.sources import LocalFolder
from model_graphs import Graph
from pictures import draw, draw_data_set

SIDE = 12
VIEWS = ("rgb", "grey", "shuffle", "flip")
BLOCKS = [f"small:{view}" for view in VIEWS] + ["hsv_histogram:rgb"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Stores of a small network in all its views, and of colours."""
    folder = tmp_path_factory.mktemp("explain")
    draw_data_set(folder / "images", n_each=8)
    draw(folder / "new" / "one.png", "red", True, seed=99, side=40)
    draw(folder / "new" / "two.png", "blue", False, seed=98, side=30)
    graph = Graph(["n", 3, SIDE, SIDE])
    path = graph.save(folder / "small.onnx", graph.maps)
    options = {"workspace": folder, "attributes": ["color", "kind"]}
    featurepipe.extract(
        folder / "images",
        backbone=str(path),
        view=VIEWS,
        size_px=SIDE,
        preprocess={"scale": 1 / 255, "mean": (0.5,), "std": (0.5,)},
        precision="float32",
        **options,
    )
    featurepipe.extract(folder / "images", backbone="hsv_histogram", **options)
    return folder


@pytest.fixture
def panels(monkeypatch):
    """The panels of each picture, by the name of its file."""
    drawn = {}

    def draw_evidence(picture, name, panels, copy):
        drawn[copy.name] = (picture, panels)
        copy.write_bytes(b"")

    monkeypatch.setattr("featurepipe.workflows.explain.draw_evidence", draw_evidence)
    return drawn


def fit(place, features, **options):
    (name,) = featurepipe.fit(workspace=place, features=features, **options)["run"].unique()
    return load_run(place / "runs" / name)


def explain(place, run, out, **options):
    return featurepipe.predict(
        [place / "new"], workspace=place, run=run.name, explain=out, **options
    )


def numbers_of(panel):
    """Score, evidence and intercept as the note says them."""
    words = panel.notes[0].rstrip(".").replace(":", "").replace(",", "").split()
    return {key.lower(): float(value) for key, value in zip(words[::2], words[1::2], strict=True)}


def assert_sums(place, run, panels, out):
    """The cells sum to the calibrated score without its intercept."""
    answers = explain(place, run, out)
    predictor = featurepipe.Predictor(run, workspace=place)
    names = sorted((place / "new").glob("*.png"))
    for number, name in enumerate(names, start=1):
        picture, of_image = panels[f"{number:04}-{name.stem}-evidence.jpg"]
        rows = answers[answers["image"] == str(name)]
        assert len(of_image) == len(rows)
        X, _ = predictor.embed(LocalFolder(Path()), [str(name)])
        for panel, row in zip(of_image, rows.itertuples(), strict=True):
            assert panel.evidence.shape == (picture.height, picture.width)
            said = numbers_of(panel)
            expected = score_of(run.model, row, X)
            total = panel.evidence.sum()
            assert said["evidence"] == pytest.approx(total, abs=0.006)
            # The intercept is said with two decimals.
            assert total + said.get("intercept", 0) == pytest.approx(expected, abs=0.006)
    sizes = [np.abs(panel.evidence).sum() for _, shown in panels.values() for panel in shown]
    assert max(sizes) > 0.3


def score_of(model, row, X):
    """The calibrated score of a class, computed from the head's own scores."""
    head, column = model.head_for(row.attribute), model.classes[row.attribute].index(row[4])
    if model.task == "multi-label" and row.attribute == "kind":
        column += len(model.classes["color"])
    if model.task == "joint":
        which = list(model.classes).index(row.attribute)
        possible = np.flatnonzero(model.combinations[:, which] == column)
        column = possible[head.predict_proba(X)[0, possible].argmax()]
    scores, calibrator = head.decision_scores(X), head.calibrator
    if isinstance(calibrator, SoftmaxCalibrator):
        score = calibrator.slope * scores[0]
        np.testing.assert_allclose(softmax(score), head.predict_proba(X)[0], atol=1e-5)
        return score[column]
    probabilities = expit(scores[0] * calibrator.slopes + calibrator.intercepts)
    return logit(probabilities[column])


@pytest.mark.parametrize("block", BLOCKS)
def test_one_block(place, panels, tmp_path, block):
    assert_sums(place, fit(place, block, head="logistic"), panels, tmp_path / "out")


@pytest.mark.parametrize("head", ["bagged-sgd", "logistic"])
@pytest.mark.parametrize("task", ["per-attribute", "multi-label", "joint"])
def test_several_blocks_add(place, panels, tmp_path, task, head):
    run = fit(place, "hsv_histogram:rgb+small:flip+small:shuffle", head=head, task=task)
    assert_sums(place, run, panels, tmp_path / "out")
    notes = {note for _, of_image in panels.values() for panel in of_image for note in panel.notes}
    assert any(note.startswith("Of shuffled patches: ") for note in notes)
    assert any("the most probable combination with it" in note for note in notes) == (
        task == "joint"
    )


def test_attributes_read_their_own_blocks_and_what_was_tuned(place, panels, tmp_path, monkeypatch):
    # Fewer choices than users have: each is sixty fits.
    few = {"variance_threshold": ("10%", "1%"), "scaling": ("standardised",)}
    monkeypatch.setitem(GRIDS, "logistic", few)
    features = "color=hsv_histogram:rgb,kind=small:grey+small:rgb"
    run = fit(place, features, head="logistic", tune=True, calibrate="sigmoid")
    assert run.model.tuned
    assert_sums(place, run, panels, tmp_path / "out")


def test_colours_lie_where_they_are(place, panels, tmp_path):
    """Half red, half white: what speaks for red is in the red half."""
    pixels = np.full((60, 60, 3), 235, np.uint8)
    pixels[:, 30:] = 200, 30, 30
    Image.fromarray(pixels).save(tmp_path / "halves.png")
    run = fit(place, "hsv_histogram:rgb", head="logistic")
    featurepipe.predict(
        [tmp_path / "halves.png"], workspace=place, run=run.name, explain=tmp_path / "out"
    )
    ((_, of_image),) = panels.values()
    color = of_image[0]
    left, right = color.evidence[:, :170].sum(), color.evidence[:, 190:].sum()
    if color.title.startswith("color: red") or "(red" in color.title:
        assert right > left
    else:
        assert "white" in color.title and left > right


def test_neighbours_are_named(place, panels, tmp_path):
    run = fit(place, "small:rgb", head="knn")
    image = sorted(run.selection.ids)[0]
    featurepipe.predict(
        [place / "images" / image], workspace=place, run=run.name, explain=tmp_path / "out"
    )
    ((_, of_image),) = panels.values()
    for panel in of_image:
        assert panel.evidence is None
        reason, heading, nearest, *others = panel.notes
        assert reason == "No map of knn: CosineNeighbours is not linear."
        assert heading == "Nearest training images, by cosine:"
        # A training image is its own nearest.
        assert nearest == f"1.000 {image}"
        assert len(others) == 4


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"head": "svm"}, "No map of svm: RbfSVM is not linear."),
        ({"head": GaussianNB()}, "No map of GaussianNB: GaussianNB is not linear."),
    ],
)
def test_other_heads_say_why_there_is_no_map(place, panels, tmp_path, options, reason):
    explain(place, fit(place, "small:rgb", **options), tmp_path / "out")
    for _, of_image in panels.values():
        assert [panel.notes for panel in of_image] == [(reason,)] * 2


def test_features_that_are_no_average_say_so(place, panels, tmp_path):
    home = tmp_path / "other"
    options = {"workspace": home, "attributes": ["color", "kind"]}
    featurepipe.extract(
        place / "images",
        backbone=str(place / "small.onnx"),
        size_px=SIDE,
        preprocess={"scale": 1 / 255, "mean": (0.5,), "std": (0.5,)},
        precision="float32",
        pooling="max",
        **options,
    )
    featurepipe.extract(place / "images", backbone="hsv_histogram", **options)
    run = fit(home, "small:rgb+hsv_histogram:rgb", head="logistic")
    featurepipe.predict([place / "new"], workspace=home, run=run.name, explain=tmp_path / "out")
    reason = (
        "No map of logistic: the features of small (pooling max) are no average over places of "
        "the image."
    )
    for _, of_image in panels.values():
        assert [(panel.evidence, panel.notes) for panel in of_image] == [(None, (reason,))] * 2


def test_by_the_command_line(place, capsys, monkeypatch, tmp_path):
    run = fit(place, "hsv_histogram:rgb+small:rgb", head="logistic")
    monkeypatch.chdir(place)
    out = tmp_path / "both"
    command = ("predict", "new", "--run", run.name)
    answers = succeed(capsys, *command, "--explain", out, "--annotate", out)
    assert answers == succeed(capsys, *command)
    assert sorted(path.name for path in out.iterdir()) == [
        MARKER,
        "0001-one-evidence.jpg",
        "0001-one.jpg",
        "0002-two-evidence.jpg",
        "0002-two.jpg",
    ]
    # The image and two attributes.
    assert Image.open(out / "0001-one-evidence.jpg").width == 16 + 3 * 376
    line = fail(capsys, *command, "--explain", "images/red_plain")
    assert "Pictures would be written to images/red_plain, a folder of the source" in line
    line = fail(capsys, *command, "--explain", "new")
    assert "--explain new already holds images" in line
    assert not (place / "new" / MARKER).exists()


def test_nothing_is_written_if_one_folder_is_refused(place, tmp_path):
    run = fit(place, "hsv_histogram:rgb", head="logistic")
    with pytest.raises(UsageError, match="--explain"):
        explain(place, run, place / "new", annotate=tmp_path / "copies")
    with pytest.raises(UsageError, match="--annotate"):
        explain(place, run, tmp_path / "evidence", annotate=place / "new")
    assert not (tmp_path / "copies").exists() and not (tmp_path / "evidence").exists()


def test_an_image_that_cannot_be_read_has_no_picture(place, panels, tmp_path):
    run = fit(place, "hsv_histogram:rgb", head="logistic")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"broken")
    images = [broken, place / "new" / "two.png"]
    featurepipe.predict(images, workspace=place, run=run.name, explain=tmp_path / "out")
    assert list(panels) == ["0002-two-evidence.jpg"]
