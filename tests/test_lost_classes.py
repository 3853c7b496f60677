"""Classes of which all images were refused, found with few ids in memory."""

import pytest

from featurepipe.manifest import Labelling, lost_classes
from featurepipe.manifest.manifest import new_manifest

IDS = ["black_hat/1.jpg", "black_hat/2.png", "black_shoe/3.jpg", "red_hat/4.jpg", "top.jpg"]
COLORS = [("black",), ("black",), ("black",), ("red",), None]
KINDS = [("hat",), ("hat",), ("shoe",), ("hat",), None]


def lost(refused, columns, **labelling):
    source = "/x/t.csv" if columns else "/x"
    manifest = new_manifest(IDS, "/x", source, None, Labelling(**labelling), columns, [])
    with manifest.rows() as rows:
        return lost_classes(rows, refused)


@pytest.mark.parametrize(
    "columns", [{}, {"color": COLORS, "kind": KINDS}], ids=["folders", "table"]
)
@pytest.mark.parametrize(
    ("refused", "expected"),
    [
        ({IDS[0]}, {}),
        ({IDS[0], IDS[1], IDS[4]}, {}),
        ({IDS[2]}, {"kind": {"shoe": [IDS[2]]}}),
        (
            set(IDS[1:]),
            {"color": {"red": [IDS[3]]}, "kind": {"shoe": [IDS[2]]}},
        ),
        (
            {*IDS[:3]},
            {"color": {"black": IDS[:3]}, "kind": {"shoe": [IDS[2]]}},
        ),
        (
            set(IDS),
            {
                "color": {"black": IDS[:3], "red": [IDS[3]]},
                "kind": {"hat": [IDS[0], IDS[1], IDS[3]], "shoe": [IDS[2]]},
            },
        ),
    ],
)
def test_a_class_is_lost_with_its_last_image(columns, refused, expected):
    assert lost(refused, columns, attributes=("color", "kind")) == expected


def test_rare_classes_are_none():
    assert lost(set(IDS[2:]), {}, attributes=("color", "kind"), min_per_class=2) == {}


def test_an_image_of_several_classes_counts_for_each():
    tags = [("a", "b"), ("b",), (), ("a",), None]
    assert lost({IDS[0], IDS[3]}, {"tags": tags}) == {"tags": {"a": [IDS[0], IDS[3]]}}
