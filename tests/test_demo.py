import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "demo"))
from draw_garments import CATEGORIES, SHADES, draw_folder, draw_garment

import demo
from featurepipe.errors import WeightsError


@pytest.mark.parametrize("category", CATEGORIES)
def test_garments_vary_and_are_the_same_for_a_seed(category):
    def drawn(color, seed):
        return np.asarray(draw_garment(category, color, np.random.default_rng(seed)), int)

    assert (drawn("red", 0) == drawn("red", 0)).all()
    assert np.abs(drawn("red", 0) - drawn("red", 1)).mean() > 5


@pytest.mark.parametrize("color", SHADES)
def test_garments_have_their_colour(color):
    pictures = [
        np.asarray(draw_garment("dress", color, np.random.default_rng(seed)), float)
        for seed in range(5)
    ]
    middle = np.mean([picture[130:170, 100:140].mean(axis=(0, 1)) for picture in pictures], axis=0)
    nearest = min(SHADES, key=lambda name: np.abs(middle - SHADES[name]).sum())
    assert nearest == color


def test_a_folder_holds_the_pictures_of_one_combination(tmp_path):
    draw_folder(tmp_path, [("black", "dress"), ("red", "shoe")], n_each=2, seed=0)
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.jpg"))
    assert files == ["black_dress/000.jpg", "black_dress/001.jpg",
                     "red_shoe/000.jpg", "red_shoe/001.jpg"]  # fmt: skip


def test_every_class_of_what_is_never_trained_occurs_in_training():
    drawn = {"_".join(combination) for combination in demo.DRAWN}
    every = {"_".join(combination) for combination in product(SHADES, CATEGORIES)}
    assert every - drawn == {"_".join(demo.ABSENT)}
    assert drawn > set(demo.HELD_OUT)
    trained = [name.split("_") for name in drawn - set(demo.HELD_OUT)]
    for name in ("_".join(demo.ABSENT), *demo.HELD_OUT):
        color, category = name.split("_")
        assert color in {one for one, _ in trained} and category in {two for _, two in trained}


@pytest.mark.parametrize(
    ("category", "verdict"),
    [("dress", "black 0.99, dress 0.61: right"), ("jeans", "black 0.99, jeans 0.61: wrong")],
)
def test_the_verdict_on_the_black_dress_follows_the_best_class(category, verdict):
    table = [
        "image,attribute,rank,class,probability,given,unknown,refused",
        "a.jpg,color,1,black,0.9937,True,False,",
        "a.jpg,color,2,blue,0.0063,False,False,",
        f"a.jpg,category,1,{category},0.612,True,False,",
        "a.jpg,category,2,shirt,0.388,False,False,",
    ]
    assert demo.judge(table, ("black", "dress")) == verdict


def test_weights_are_random_where_no_others_can_be_had(monkeypatch, capsys):
    def refuse(*_):
        raise WeightsError("not here")

    monkeypatch.setattr(demo, "resolve_weights", refuse)
    assert demo.choose_weights() == "random"
    assert capsys.readouterr().out.count("\n") == 1
    monkeypatch.setattr(demo, "resolve_weights", lambda *_: None)
    assert demo.choose_weights() == "imagenet"
    assert capsys.readouterr().out == ""


def test_a_command_that_fails_ends_the_demo_with_its_error(capsys):
    with pytest.raises(SystemExit, match="1"):
        demo.featurepipe("info no-such-file")
    assert "no-such-file" in capsys.readouterr().out
