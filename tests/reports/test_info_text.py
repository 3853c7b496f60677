import pytest
from rich.cells import cell_len

from featurepipe.reports.info_text import MAX_LINES, info_text

ESCAPES = "na\x1b[31mme\n"


def many(n, *, prefix="name"):
    return [f"{prefix}{number}-" + "long" * (number % 20) for number in range(n)]


def manifest(n):
    return {
        "what": "manifest",
        "path": "/place/" + "x" * 200,
        "images": 10_000,
        "root": "s3://" + "bucket" * 30,
        "source": "s3://bucket",
        "labels_source": "/labels/" + "y" * 200,
        "attributes": {name: dict.fromkeys(many(n * 10, prefix=ESCAPES), 12) for name in many(n)},
        "labelled": dict.fromkeys(many(n), 9_000),
        "group": ESCAPES,
        "findings": ["finding " * 40] * n,
    }


def store(what, n):
    return {
        "what": what,
        "path": "/place/store.h5",
        "name": ESCAPES + "z" * 150,
        "bytes": 10**10,
        "images": 10_000,
        "done": 9_000,
        "refused": 300,
        "pending": 700,
        "n_features": 2048,
        "recipe": {
            "backbone": "xception",
            "size_px": 299,
            "view": "rgb",
            "decoding": "full",
            "pooling": "layer" * 40,
            "resize": "pillow-bicubic-crop-256",
            "preprocessing": "scale=0.00392156862745098 mean=0.485,0.456,0.406 std=0.229,0.224,0.2",
            "precision": "float32",
        },
        "made_by": {
            "engine": "keras",
            "machine": "Linux-x86_64",
            "weights_label": ESCAPES * 30,
            "versions": dict.fromkeys(many(n), "1.2.3"),
        },
        "images_per_s": None,
        "busy_s": {},
        "bottleneck": "",
        "refused_images": dict.fromkeys(many(300, prefix=ESCAPES), "not an image " * 20),
        "verified": "8 rows",
    }


def split(n):
    return {
        "what": "split",
        "path": "/place/split.json",
        "name": "test20",
        "train": 8_000,
        "test": 2_000,
        "unseen": 100,
        "groups": {"train": 8_000, "test": 1_900, "unseen": 1},
        "left_out": 12,
        "settings": {
            "test_size": 0.2,
            "seed": 3,
            "hold_out": many(81, prefix="black_dress"),
            "group": "patient" * 20,
            "repeats": 5,
            "group_duplicates": True,
        },
        "repeat": 1,
        "findings": ["finding " * 40] * n,
    }


def run(n):
    attributes = many(n)
    measured = {"accuracy": 0.965, "low": 0.943, "high": 0.979}
    shares = dict.fromkeys([*attributes, "all"], 0.97) | {attributes[0]: None}
    return {
        "what": "run",
        "path": "/place/runs/run",
        "name": ESCAPES + "run" * 60,
        "head": "bagged-sgd",
        "is_network": n > 3,
        "task": "joint",
        "split": "split" * 50,
        "attributes": attributes,
        "changed": [f"labels of {ESCAPES!r} changed: 3 images, such as 'a.png'"] * (n > 1),
        "n_train": 8_000,
        "n_test": 2_000,
        "n_unseen": 100,
        "selection_accuracy": shares,
        "test_accuracy": dict.fromkeys([*attributes, "all"], measured),
        "unseen_accuracy": {"all": {"accuracy": 0.5, "low": None, "high": None}},
        "reads": {name: many(n, prefix="block") for name in attributes},
        "n_feature_trials": n,
        "n_head_trials": 0,
        "settings": {
            "head": "bagged-sgd",
            "calibrate": "auto",
            "tune": False,
            "branches": dict.fromkeys(attributes, "grey"),
            "seed": 0,
        },
        "ece": {name: [0.254, None] for name in attributes},
        "costs": {
            "fit_s": 12_345.6,
            "predict_ms_per_image": None,
            "model_bytes": 10**9,
            "n_parameters": 23_587_712,
            "epochs": 41,
            "peak_memory_bytes": 10**10,
        },
        "versions": dict.fromkeys(many(n), "1.2.3"),
        "machine": "Linux",
        "files": many(n),
    }


def workspace(n):
    return manifest(n) | {
        "what": "workspace",
        "stores": [store("feature store", 2) | {"name": name} for name in many(n)],
        "pixel_caches": [store("pixel cache", 2) for _ in range(n)],
        "splits": [split(2) | {"name": name} for name in many(n)],
        "runs": [run(2) | {"name": name} for name in many(n)],
        "damaged": ["a sentence\nof many words " * 20] * n,
    }


FACTS = {
    "workspace": workspace,
    "manifest": manifest,
    "feature store": lambda n: store("feature store", n),
    "pixel cache": lambda n: store("pixel cache", n),
    "split": split,
    "run": run,
}


@pytest.mark.parametrize("width", [60, 100])
@pytest.mark.parametrize("n", [1, 5, 100])
@pytest.mark.parametrize("what", FACTS)
def test_whatever_there_is_fits_25_lines(what, n, width):
    lines = info_text(FACTS[what](n), width).split("\n")
    assert len(lines) <= MAX_LINES
    assert max(map(cell_len, lines)) <= width
    assert all(line.isprintable() for line in lines)
    text = "\n".join(lines)
    assert "{" not in text and "['" not in text and "None" not in text and "nan" not in text


def test_what_does_not_fit_is_counted():
    lines = info_text(split(100)).split("\n")
    held_out = next(line for line in lines if line.startswith("held out"))
    assert held_out.startswith("held out     black_dress0-, black_dress1-long, ")
    n_shown = held_out.count("black_dress")
    assert held_out.endswith(f", … {81 - n_shown} more")
    n_findings = sum("finding finding" in line for line in lines)
    assert f"             … {100 - n_findings} more" in lines


def test_refused_images_are_counted_and_the_first_are_named():
    lines = info_text(store("feature store", 2)).split("\n")
    assert "images       9,000 of 10,000 done, 300 refused, 700 pending" in lines
    start = next(at for at, line in enumerate(lines) if line.startswith("refused"))
    n_named = sum("not an image" in line for line in lines[start:])
    assert lines[start + n_named] == f"             … {300 - n_named} more"
    assert lines[-1] == "next         featurepipe extract, for 700 pending images"


def test_a_run_in_numbers_a_person_reads():
    lines = info_text(run(2)).split("\n")
    text = "\n".join(lines)
    assert "all            97.0 %  96.5 % (94.3–97.9)" in text
    assert "fit 3.4 h" in text and "model 1.00 GB" in text and "23,587,712 parameters" in text
    assert "settings     not tuned, branches name0-=grey name1-long=grey, seed 0" in lines


@pytest.mark.parametrize(
    ("changes", "command"),
    [
        ({"stores": []}, "featurepipe extract"),
        ({"attributes": {}}, "featurepipe fit --labels TABLE.csv"),
        ({"runs": []}, "featurepipe fit"),
        ({}, "featurepipe report"),
    ],
)
def test_a_workspace_names_the_next_command(changes, command):
    facts = workspace(1)
    facts["stores"] = [store | {"pending": 0} for store in facts["stores"]]
    assert info_text(facts | changes).split("\n")[-1] == f"next         {command}"


GREY, BOTH = ["xception:grey"], ["hsv_histogram:rgb", "xception:grey"]


@pytest.mark.parametrize(
    ("changes", "command"),
    [
        ({"n_feature_trials": 12}, "fit --head bagged-sgd --features auto"),
        (
            {"n_feature_trials": 0, "reads": {"color": BOTH, "kind": BOTH}},
            "fit --head bagged-sgd --features hsv_histogram:rgb+xception:grey",
        ),
        (
            {"n_feature_trials": 0, "reads": {"color": BOTH, "kind": GREY}},
            "fit --head bagged-sgd --features "
            "color=hsv_histogram:rgb+xception:grey,kind=xception:grey",
        ),
        ({"is_network": True, "head": "fashionnet"}, "train fashionnet"),
    ],
)
def test_a_run_names_the_command_that_made_it(changes, command):
    lines = info_text(run(2) | {"attributes": []} | changes, 120).split("\n")
    assert f"made by      featurepipe {command}" in lines
