from itertools import combinations

import numpy as np

from featurepipe.reports.page.point_labels import place_labels

ROOM = (0, 0, 700, 400)


def box(label):
    width = 7.4 * len(label.text)
    left = {"start": label.x, "middle": label.x - width / 2, "end": label.x - width}[label.anchor]
    return left, label.y - 11, left + width, label.y + 4


def overlap(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def test_a_label_stands_right_of_a_lone_point_and_left_where_there_is_no_room():
    (right,) = place_labels([(100, 100)], ["run"], ROOM)
    assert (right.anchor, right.is_far) == ("start", False)
    assert 100 < right.x < 115
    (left,) = place_labels([(695, 100)], ["run"], ROOM)
    assert left.anchor == "end"


def test_labels_never_cover_each_other_nor_a_point():
    rng = np.random.default_rng(0)
    points = [tuple(point) for point in rng.uniform((50, 50), (600, 350), (30, 2))]
    labels = place_labels(points, [f"a run {k}" for k in range(30)], ROOM)
    assert len(labels) > 15
    for first, second in combinations(labels, 2):
        assert not overlap(box(first), box(second))
    for label in labels:
        left, top, right, bottom = box(label)
        assert not any(left < x < right and top < y < bottom for x, y in points)


def test_only_the_first_points_have_labels():
    labels = place_labels([(100, 100), (300, 300)], ["first"], ROOM)
    assert [label.point for label in labels] == [0]


def test_a_whisker_is_covered_only_where_nothing_else_is_free():
    (label,) = place_labels([(100, 200)], ["run"], ROOM, [(110, 0, 130, 400)])
    assert label.anchor == "end"
