"""featurepipe similar: what it finds, what it need not embed, and what it refuses first."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import featurepipe
from command_line import fail, refuse, succeed
from featurepipe.errors import (
    ExtractionError,
    ManifestError,
    StoreError,
    UnknownNameError,
    UsageError,
    WorkspaceError,
)
from featurepipe.features.store import FeatureStore
from featurepipe.workflows.nearest_images import nearest_training_images
from featurepipe.workspace import Workspace
from pictures import draw, draw_data_set
from refusals import assert_refused_first

RED = "red_plain/03.png"
COPY = "red_plain/copy.png"


@pytest.fixture
def home(tmp_path, monkeypatch, colour_mean):
    """81 pictures, of which two are identical, with the features of one network."""
    monkeypatch.chdir(tmp_path)
    draw_data_set(Path("images"))
    shutil.copy(Path("images") / RED, Path("images") / COPY)
    featurepipe.extract(
        "images", attributes=["color", "kind"], backbone="resnet50", weights="random", size_px=8
    )
    colour_mean.clear()
    return tmp_path


def units_of(home):
    (path,) = Workspace(home).stores()
    with FeatureStore.open(path) as store:
        X = store.features().astype(float)
        return store.ids, X / np.linalg.norm(X, axis=1, keepdims=True)


def test_an_image_of_the_workspace_has_the_nearest_others(home, colour_mean):
    found = featurepipe.similar(["blue_plain/02.png"], n=5)
    ids, X = units_of(home)
    own = ids.tolist().index("blue_plain/02.png")
    distances = np.linalg.norm(X - X[own], axis=1)
    distances[own] = np.inf
    nearest = np.argsort(distances)[:5]
    assert found["image"].tolist() == ids[nearest].tolist()
    np.testing.assert_allclose(found["distance"], distances[nearest], rtol=1e-5)
    assert found["rank"].tolist() == [1, 2, 3, 4, 5]
    assert set(found["query"]) == {"blue_plain/02.png"}
    assert found["labels"][0] == {"color": ["blue"], "kind": ["plain"]}
    assert not found["same_bytes"].any()
    assert found.attrs["features"] == "resnet50-random0-8-avg-rgb"
    medians = found["distance"] / found["of_median"]
    np.testing.assert_allclose(medians, medians[0])
    every = np.linalg.norm(X[:, None] - X, axis=2)[np.triu_indices(len(X), 1)]
    assert np.quantile(every, 0.4) < medians[0] < np.quantile(every, 0.6)
    # Nothing was embedded.
    assert colour_mean == []


def test_identical_files_are_named_and_none_is_its_own_neighbour(home, colour_mean):
    found = featurepipe.similar([RED, f"images/{COPY}"], n=3)
    first, second = (rows for _, rows in found.groupby("query", sort=False))
    assert first["image"].iloc[0] == COPY and second["image"].iloc[0] == RED
    assert RED not in first["image"].tolist() and COPY not in second["image"].tolist()
    for rows in (first, second):
        assert rows["same_bytes"].tolist() == [True, False, False]
        assert rows["distance"].iloc[0] == 0 < rows["distance"].iloc[1]
    # A copy that the workspace does not have has both as neighbours, and is not embedded.
    shutil.copy(Path("images") / RED, "photo.png")
    found = featurepipe.similar(["photo.png"], n=3)
    assert found["image"].tolist()[:2] == [RED, COPY]
    assert found["same_bytes"].tolist() == [True, True, False]
    assert colour_mean == []


def test_a_new_image_is_embedded_as_the_store_was(home, colour_mean):
    draw(Path("new/one.png"), "white", bright_top=False, seed=77)
    draw(Path("new/two.png"), "red", bright_top=True, seed=78)
    found = featurepipe.similar(["new"], n=4, features="resnet50")
    assert found["query"].unique().tolist() == ["new/one.png", "new/two.png"]
    assert {labels["color"][0] for labels in found["labels"][:4]} == {"white"}
    assert {labels["color"][0] for labels in found["labels"][4:]} == {"red"}
    assert [engine.n_embedded for engine in colour_mean] == [2]
    # As if it had been extracted with the others.
    shutil.copytree("new", "images/white_plain", dirs_exist_ok=True)
    featurepipe.extract()
    again = featurepipe.similar(["white_plain/one.png"], n=5)
    kept = again[again["image"] != "white_plain/two.png"].head(4)
    assert kept["image"].tolist() == found["image"].tolist()[:4]
    np.testing.assert_allclose(kept["distance"], found["distance"][:4], rtol=1e-4)


def test_an_image_that_changed_is_embedded_and_stays_no_neighbour_of_itself(home, colour_mean):
    draw(Path("images") / RED, "blue", bright_top=False, seed=79)
    found = featurepipe.similar([f"images/{RED}"], n=3)
    assert {labels["color"][0] for labels in found["labels"]} == {"blue"}
    assert [engine.n_embedded for engine in colour_mean] == [1]
    assert RED not in featurepipe.similar([f"images/{RED}"], n=100)["image"].tolist()


def test_an_image_is_known_by_any_path_to_it(home, colour_mean, monkeypatch):
    monkeypatch.chdir(home / "images")
    featurepipe.extract(
        "../images", attributes=["color", "kind"], backbone="resnet50", weights="random", size_px=8,
        workspace="../home",
    )  # fmt: skip
    for path in (RED, f"../images/{RED}", home / "images" / RED):
        found = featurepipe.similar([path], n=100, workspace="../home")
        assert len(found) == 80 and RED not in found["image"].tolist()


def test_all_others_are_found_if_there_are_fewer(home):
    assert len(featurepipe.similar([RED], n=500)) == 80


def test_images_that_left_the_manifest_are_not_found(home):
    shutil.rmtree("images/red_plain")
    featurepipe.extract()
    found = featurepipe.similar(["red_bright/00.png"], n=500)
    assert len(found) == 69
    assert not found["image"].str.startswith("red_plain").any()


def test_missing_labels_and_sets_are_said(home, capsys):
    rows = [f"red_plain/{k:02}.png,{'a|b' if k else ''}" for k in range(10)]
    Path("labels.csv").write_text("\n".join(["path,tag", *rows, "blue_plain/00.png,b"]))
    featurepipe.extract(
        "images", labels="labels.csv", all_images=True,
        backbone="resnet50", weights="random", size_px=8,
    )  # fmt: skip
    found = featurepipe.similar([RED], n=100).set_index("image")["labels"]
    assert found[COPY] == {"tag": None}
    assert found["red_plain/01.png"] == {"tag": ["a", "b"]}
    assert "same bytes  –" in succeed(capsys, "similar", RED)


def test_the_command_prints_tables_or_json(home, capsys):
    lines = succeed(capsys, "similar", RED, "--n", "2").splitlines()
    assert lines[0] == RED
    assert lines[2].split() == ["#", "image", "distance", "of", "median", "labels"]
    assert lines[3].split() == ["1", COPY, "0", "same", "bytes", "red,", "plain"]
    assert "features of resnet50-random0-8-avg-rgb, scaled to length 1" in lines[-2]
    first, second = json.loads(succeed(capsys, "similar", RED, "--n", "2", "--json"))
    assert list(first) == [
        "query", "rank", "image", "distance", "of_median", "same_bytes", "labels",
    ]  # fmt: skip
    assert (first["image"], first["distance"], first["same_bytes"]) == (COPY, 0, True)
    assert second["rank"] == 2 and second["labels"] == {"color": ["red"], "kind": ["plain"]}


def test_json_has_no_nan_where_all_images_are_alike(tmp_path, monkeypatch, colour_mean, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("a/1", "a/2", "b/1", "b/2"):
        draw(Path("images") / f"{name}.png", "red", bright_top=True, seed=1)
    featurepipe.extract("images", backbone="resnet50", weights="random", size_px=8)
    found = json.loads(succeed(capsys, "similar", "a/1.png", "--json"))
    assert [row["of_median"] for row in found] == [None] * 3


def test_the_contact_sheet_begins_a_row_with_each_query(home, capsys):
    draw(Path("new.png"), "white", bright_top=False, seed=77, side=220)
    succeed(capsys, "similar", "new.png", RED, "--n", "2", "--contact-sheet", "sheet.png")
    sheet = Image.open("sheet.png")
    assert sheet.width == 12 + 5 * 232
    # Two rows, the first of which begins with the new image.
    assert 2 * 232 < sheet.height < 3 * 232 + 2 * 68
    first = np.asarray(Image.open("new.png").convert("RGB"))
    np.testing.assert_array_equal(np.asarray(sheet)[12:232, 12:232], first)
    # Beside a query and two neighbours the row is empty.
    assert (np.asarray(sheet)[:, 12 + 3 * 232 :] == 255).all()


def test_an_image_that_is_gone_is_still_found_and_its_place_stays_empty(home, capsys):
    (home / "images" / COPY).unlink()
    found = featurepipe.similar([RED], n=1, contact_sheet="sheet.png")
    assert found["image"].tolist() == [COPY]
    pixels = np.asarray(Image.open("sheet.png"))
    assert (pixels[:232, 244:] == 255).all() and (pixels[232:, 244:] < 100).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "--n is 0"),
        ({"features": "xception"}, "Unknown features 'xception'"),
        ({"features": "resnet50+resnet50"}, "names several stores"),
        ({"contact_sheet": "sheet.gif"}, "its suffix is '.gif'"),
        ({"contact_sheet": "none/sheet.png"}, "there is no folder none"),
        ({"contact_sheet": "images/sheet.png"}, "would be one of the images of"),
        ({"contact_sheet": "new.png"}, "would replace one of the images to compare"),
        ({"contact_sheet": "s.png", "n": 80, "images": [f"red_plain/{k:02}.png" for k in range(5)]},
         "at most 400 images, not 425"),
        ({"images": []}, "There is no image to compare"),
        ({"images": ["new.png", "absent.png"]}, "No image found at 'absent.png' (no such file)"),
        ({"images": ["absent.png"]}, "Or give the id of an image that has features, such as "
         "'black_bright/00.png'."),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_first(home, options, message):
    draw(Path("new.png"), "red", bright_top=True, seed=77)
    options = {"images": ["new.png"], **options}
    assert_refused_first(home, lambda: featurepipe.similar(**options), message)


def test_an_image_that_cannot_be_read_is_an_error_and_nothing_is_written(home, capsys):
    Path("broken.png").write_bytes(b"broken")
    draw(Path("new.png"), "red", bright_top=True, seed=77)
    said = fail(capsys, "similar", "new.png", "broken.png", "--contact-sheet", "sheet.png")
    assert said.startswith("featurepipe: broken.png cannot be read (not an image")
    assert not Path("sheet.png").exists()
    with pytest.raises(ExtractionError, match=r"broken\.png cannot be read"):
        featurepipe.similar(["broken.png"])
    with pytest.raises(UsageError, match="the features are those of resnet50"):
        featurepipe.similar(["new.png"], weights=["xception=weights.h5"])
    assert "'--n': 0 is not in the range" in refuse(capsys, "similar", "new.png", "--n", "0")


def test_without_features_there_is_nothing_to_search(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WorkspaceError, match="has no images yet"):
        featurepipe.similar(["a.png"])
    draw_data_set(Path("images"), n_each=2)
    featurepipe.extract("images", backbone="hsv_histogram")
    store = next(Path("features").glob("*.h5"))
    # The only store is used, although no network made it.
    assert featurepipe.similar(["red_plain/00.png"], n=1).attrs["features"] == store.stem
    featurepipe.extract(backbone="hsv_histogram", view="flip")
    with pytest.raises(UsageError, match=r"Name the one to compare images by: --features hsv_"):
        featurepipe.similar(["red_plain/00.png"])
    assert len(featurepipe.similar(["red_plain/00.png"], n=1, features="hsv_histogram:flip")) == 1
    for path in Path("features").glob("*.h5"):
        path.unlink()
    with pytest.raises(WorkspaceError, match="has no features yet"):
        featurepipe.similar(["red_plain/00.png"])
    with pytest.raises((ManifestError, UnknownNameError, WorkspaceError)):
        featurepipe.similar(["absent"], features="xception")


def test_the_nearest_training_images_are_found_for_others_and_for_themselves(home):
    (store,) = Workspace(home).stores()
    ids, X = units_of(home)
    training = [image for image in ids if image[-5] in "01234"] + [COPY]
    asked = ["white_plain/07.png", RED, "white_plain/00.png", "absent.png"]
    nearest = nearest_training_images(store, asked, training, 3)
    assert list(nearest) == asked[:3]
    for image, neighbours in nearest.items():
        distances = np.linalg.norm(X - X[ids.tolist().index(image)], axis=1)
        order = [ids[k] for k in np.argsort(distances) if ids[k] in training and ids[k] != image]
        if image == RED:
            assert (neighbours[0].image, neighbours[0].same_bytes) == (COPY, True)
        else:
            assert [found.image for found in neighbours] == order[:3]
        assert [found.distance for found in neighbours] == sorted(f.distance for f in neighbours)
    with pytest.raises(StoreError, match="has no features of the images to search"):
        nearest_training_images(store, asked, ["absent.png"], 3)
