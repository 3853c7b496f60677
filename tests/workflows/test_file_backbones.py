"""Networks in files as backbones, by the command line: from the pictures to answers for others."""

import json

import numpy as np
import pytest

import featurepipe
from command_line import fail, succeed
from featurepipe.features.store import FeatureStore
from model_graphs import Graph, embed_patches, kernel
from pictures import draw, draw_data_set
from refusals import content

SIDE = 12
PREPROCESSING = ("--size", SIDE, "--mean", "0.5", "--std", "0.25,0.5,1")
LINE = "scale=0.00392156862745098 mean=0.5,0.5,0.5 std=0.25,0.5,1.0 channels=rgb"


def save_network(path, factor=1.0, shape=("n", 3, SIDE, SIDE)):
    graph = Graph(shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    scaled = graph.add("Mul", graph.vector(), graph.constant(np.float32(factor)), name="scaled")
    return graph.save(path, scaled)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """40 pictures as large as the networks' input, and a workspace."""
    monkeypatch.chdir(tmp_path)
    draw_data_set(tmp_path / "dataset", n_each=5)
    draw(tmp_path / "new.png", "red", False, seed=99)
    (tmp_path / "work").mkdir()
    return tmp_path


def extract(capsys, *options):
    # Some processors would compute in bfloat16.
    given = ("--workspace", "work", "--precision", "float32", *options)
    return succeed(capsys, "extract", "dataset", *given)


def pixels_of(folder, ids):
    from PIL import Image

    return np.stack([np.asarray(Image.open(folder / "dataset" / name)) for name in ids])


def stores(folder):
    return sorted(path.name for path in (folder / "work" / "features").glob("*.h5"))


def read(folder, name):
    with FeatureStore.open(folder / "work" / "features" / name) as store:
        rows = np.arange(len(store.ids))
        return store.key, store.ids, store.features(rows)


def test_from_a_file_to_answers(folder, capsys):
    path = save_network(folder / "net" / "my net.onnx")
    extract(capsys, "--backbone", path, *PREPROCESSING)
    (name,) = stores(folder)
    key, ids, features = read(folder, name)
    assert (key.backbone, key.preprocessing, key.resize) == ("my_net", LINE, "pillow-bilinear")
    pixels = (pixels_of(folder, ids) / 255 - 0.5) / (0.25, 0.5, 1)
    np.testing.assert_allclose(features, embed_patches(pixels).mean(axis=(2, 3)), rtol=1e-4)
    said = succeed(capsys, "info", folder / "work" / "features" / name)
    assert f"resizing pillow-bilinear pixels {LINE}" in " ".join(said.split())
    succeed(capsys, "fit", "--workspace", "work", "--backbone", "my_net", "--head", "logistic")
    predict = ("predict", "new.png", "--workspace", "work")
    answer = succeed(capsys, *predict)
    assert "red_plain" in answer
    moved = path.rename(folder / "renamed.onnx")
    assert "my net.onnx" in fail(capsys, *predict)
    assert succeed(capsys, *predict, "--weights", f"my_net={moved}") == answer
    # Another network is no other place of the same.
    save_network(moved, factor=2.0)
    message = fail(capsys, *predict, "--weights", f"my_net={moved}")
    assert "These would not be the features of before: " in message
    assert "sha256" in message
    assert fail(capsys, *predict, "--weights", f"other={moved}").endswith("Omit it.")


def test_views_and_the_choice_of_features(folder, capsys):
    path = save_network(folder / "small.onnx")
    extract(capsys, "--backbone", path, *PREPROCESSING, "--view", "rgb,grey,shuffle")
    assert [name.split("-")[-1] for name in stores(folder)] == ["grey.h5", "rgb.h5", "shuffle.h5"]
    out = succeed(capsys, "fit", "--workspace", "work", "--features", "auto", "--head", "logistic")
    assert "auto-logistic" in out
    run = json.loads((folder / "work" / "runs" / "auto-logistic" / "run.json").read_text())
    assert {name for text in run["backbone"].values() for name in text.split("+")} == {"small"}
    assert "red" in succeed(capsys, "predict", "new.png", "--workspace", "work")


def test_two_files_of_one_stem_have_stores_of_their_own(folder, capsys):
    one = save_network(folder / "a" / "small.onnx")
    two = save_network(folder / "b" / "small.onnx", factor=2.0)
    for path in (one, two):
        extract(capsys, "--backbone", path, *PREPROCESSING)
    first, second = (read(folder, name) for name in stores(folder))
    assert {first[0].backbone, second[0].backbone} == {"small"}
    weak, strong = sorted([first[2], second[2]], key=np.sum)
    np.testing.assert_allclose(2 * weak, strong, rtol=1e-5)
    succeed(capsys, "fit", "--workspace", "work", "--backbone", "small", "--head", "logistic")
    assert "red" in succeed(capsys, "predict", "new.png", "--workspace", "work")


def test_a_file_named_as_a_backbone_is_told_from_it(folder, capsys):
    path = save_network(folder / "resnet50.onnx")
    extract(capsys, "--backbone", path, *PREPROCESSING)
    assert read(folder, stores(folder)[0])[0].backbone == "resnet50_onnx"
    message = fail(capsys, "fit", "--workspace", "work", "--backbone", "resnet50")
    assert "Unknown features of backbone 'resnet50'" in message
    succeed(capsys, "fit", "--workspace", "work", "--backbone", "resnet50_onnx", "--head", "knn")


def test_the_same_file_gives_the_same_store_and_another_preprocessing_another(folder, capsys):
    path = save_network(folder / "small.onnx")
    extract(capsys, "--backbone", path, *PREPROCESSING)
    before = content(folder / "work" / "features")
    # Moved and renamed to the same stem, nothing is computed again.
    (folder / "b").mkdir()
    out = extract(capsys, "--backbone", path.rename(folder / "b" / "small.onnx"), *PREPROCESSING)
    assert content(folder / "work" / "features") == before
    assert "40" in out
    line = fail(
        capsys, "extract", "dataset", "--workspace", "work", "--backbone", "b/small.onnx",
        "--size", SIDE, "--preprocess", "none",
    )  # fmt: skip
    assert "preprocessing" in line
    assert content(folder / "work" / "features") == before


def test_a_sidecar_says_it_all(folder, capsys, caplog):
    caplog.set_level("INFO")
    path = save_network(folder / "net" / "small.onnx", shape=("n", 3, "h", "w"))
    sidecar = {
        "image_processor_type": "BitImageProcessor", "do_resize": True, "resample": 3,
        "size": {"shortest_edge": 16}, "do_center_crop": True, "crop_size": {"height": 12,
        "width": 12}, "do_normalize": True, "image_mean": [0.5], "image_std": [0.5],
    }  # fmt: skip
    (folder / "net" / "preprocessor_config.json").write_text(json.dumps(sidecar))
    extract(capsys, "--backbone", path)
    key, _, _ = read(folder, stores(folder)[0])
    assert (key.resize, key.size_px) == ("pillow-bicubic-crop-16", 12)
    assert "std=0.5,0.5,0.5" in key.preprocessing
    assert "shorter side resized to 16 px, the centre of 12 x 12 px cropped" in caplog.text
    succeed(capsys, "fit", "--workspace", "work", "--head", "logistic")
    # A run keeps what was said: the sidecar may be gone.
    (folder / "net" / "preprocessor_config.json").unlink()
    assert "red" in succeed(capsys, "predict", "new.png", "--workspace", "work")


REFUSED = [
    ((), "Nothing says how small.onnx preprocesses images. Put its preprocessor_config.json"),
    (("--mean", "0.5", "--size", "24"), "small.onnx takes images of 12 px, but the command says "
     "24 px. Correct the size."),
    (("--mean", "123"), "Add --scale 1 or --scale 1/255."),
    (("--mean", "0.5,0.5"), "--mean has 2 numbers"),
    (("--std", "0"), "is impossible"),
    (("--mean", "0.5", "--crop-pct", "0.9"), "--crop-pct requires --resize shorter-side+crop."),
    (("--preprocess", "none", "--std", "0.5"), "--preprocess none cannot be combined with --std."),
    (("--preprocess", "none", "--engine", "keras"), "are computed by OpenVINO. Omit --engine"),
    (("--preprocess", "none", "--pooling", "cls"), "is a vector: --pooling cls does not apply."),
    (("--preprocess", "none", "--output", "pooler"), "small.onnx has no output or layer 'pooler'."),
]  # fmt: skip


@pytest.mark.parametrize("options, message", REFUSED)
def test_refused_before_anything_is_written(folder, capsys, options, message):
    path = save_network(folder / "small.onnx")
    line = fail(capsys, "extract", "dataset", "--workspace", "work", "--backbone", path, *options)
    assert message in line
    assert content(folder / "work") == {}


def test_a_sidecar_that_contradicts_the_network(folder, capsys):
    path = save_network(folder / "small.onnx")
    sidecar = {
        "image_processor_type": "ViTImageProcessor", "resample": 2, "size": {"height": 16,
        "width": 16}, "do_normalize": True, "image_mean": [0.5], "image_std": [0.5],
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(sidecar))
    given = ("extract", "dataset", "--workspace", "work", "--backbone", path)
    line = fail(capsys, *given)
    assert "small.onnx takes images of 12 px, but " in line
    assert "preprocessor_config.json says 16 px. Correct the size." in line
    (folder / "preprocessor_config.json").write_text("{")
    assert "preprocessor_config.json cannot be used (" in fail(capsys, *given)
    assert content(folder / "work") == {}


@pytest.mark.parametrize(
    "backbones, options",
    [
        ("resnet50", ("--mean", "0.5")),
        ("resnet50", ("--preprocess", "none")),
        ("small.onnx,other.onnx", ("--mean", "0.5")),
        ("small.onnx,resnet50", ("--scale", "1")),
        ("resnet50", ("--output", "x")),
        ("resnet50", ("--prefix-tokens", "1")),
    ],
)
def test_preprocessing_is_that_of_one_file(folder, capsys, backbones, options):
    save_network(folder / "small.onnx")
    save_network(folder / "other.onnx")
    if backbones == "small.onnx,resnet50":
        # The preprocessing of the named one is known.
        options = (*options, "--weights", "absent.h5")
        message = "There are no weights at 'absent.h5'."
    else:
        message = "applies to one network in a file, and --backbone names"
    line = fail(
        capsys, "extract", "dataset", "--workspace", "work", "--backbone", backbones, *options
    )
    assert message in line
    assert content(folder / "work") == {}


def test_a_damaged_or_absent_file(folder, capsys):
    path = save_network(folder / "small.onnx")
    path.write_bytes(path.read_bytes()[:200])
    options = ("extract", "dataset", "--workspace", "work", "--mean", "0.5", "--backbone")
    line = fail(capsys, *options, path)
    assert "small.onnx is no ONNX file, or is damaged (" in line
    assert "There is no network at 'absent.keras'." in fail(capsys, *options, "absent.keras")
    assert content(folder / "work") == {}


def test_whole_numbers_are_not_normalised(folder, capsys):
    graph = Graph(("n", SIDE, SIDE, 3), "NHWC", "u8")
    graph.save(folder / "small.onnx", graph.vector())
    options = ("--backbone", "small.onnx")
    line = fail(capsys, "extract", "dataset", "--workspace", "work", *options, "--mean", "0.5")
    assert "small.onnx takes pixels as whole numbers" in line
    assert line.endswith("Use --preprocess none.")
    extract(capsys, *options, "--preprocess", "none")
    _, ids, features = read(folder, stores(folder)[0])
    expected = embed_patches(pixels_of(folder, ids)).mean(axis=(2, 3))
    np.testing.assert_allclose(features, expected, rtol=1e-4)


def test_a_fixed_batch_that_divides_no_number_of_images(folder, capsys):
    graph = Graph([3, 3, SIDE, SIDE])
    row = graph.add("Reshape", graph.maps, graph.constant(np.array([1, -1])))
    cut = graph.add("Reshape", row, graph.constant(np.array([3, -1])))
    graph.save(folder / "small.onnx", cut)
    extract(capsys, "--backbone", "small.onnx", "--preprocess", "none")
    _, ids, features = read(folder, stores(folder)[0])
    assert len(ids) == 40
    expected = embed_patches(pixels_of(folder, ids)).reshape(40, -1)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4 * kernel().max())


def test_a_network_in_a_file_is_not_trained(folder, capsys):
    path = save_network(folder / "small.onnx")
    extract(capsys, "--backbone", path, *PREPROCESSING)
    before = content(folder / "work")
    line = fail(capsys, "train", "finetune", "--workspace", "work", "--backbone", path)
    assert "small.onnx" in line
    assert content(folder / "work") == before


def test_python_takes_the_same_values(folder):
    path = save_network(folder / "small.onnx")
    (done,) = featurepipe.extract(
        "dataset",
        backbone=str(path),
        preprocess={"mean": 0.5, "std": (0.25, 0.5, 1.0)},
        workspace="work",
        precision="float32",
    )
    assert done.n_embedded == 40
    assert read(folder, stores(folder)[0])[0].preprocessing == LINE
