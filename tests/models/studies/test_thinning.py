from itertools import pairwise

import numpy as np
import pytest

from featurepipe.manifest import Labels
from featurepipe.models.studies.learning_curve import SHARES
from featurepipe.models.studies.thinning import draw_share, learnable


def exclusive_labels(codes, n_classes, attribute="thing"):
    codes = np.asarray(codes)
    names = tuple("abcdefgh"[:n_classes])
    indicator = codes[:, None] == np.arange(n_classes)
    return Labels(attribute, names, True, indicator, codes >= 0)


class TestDrawing:
    strata = np.repeat([0, 1, 2], [160, 80, 16])
    groups = np.arange(256) // 2

    @pytest.mark.parametrize("share", SHARES)
    def test_each_stratum_gives_its_share_of_whole_groups(self, share):
        rows = draw_share(self.strata, self.groups, share, seed=4)
        counts = np.bincount(self.strata[rows])
        np.testing.assert_array_equal(counts, np.maximum([160, 80, 16] * np.array(share), 4))
        assert (np.bincount(self.groups[rows], minlength=128) != 1).all()

    def test_a_share_lies_within_the_next_larger_one(self):
        drawn = [set(draw_share(self.strata, self.groups, share, seed=1)) for share in SHARES]
        assert all(less < more for less, more in pairwise(drawn))
        assert drawn[-1] == set(range(256))

    def test_seeds_draw_others(self):
        drawn = [set(draw_share(self.strata, self.groups, 0.25, seed)) for seed in (0, 1)]
        assert drawn[0] != drawn[1]


class TestLearnable:
    color = exclusive_labels([0, 0, 1, 1, 2], 3, "color")
    kind = exclusive_labels([0, 0, 1, 0, 1], 2, "kind")

    def test_an_attribute_leaves_out_its_own_lone_classes(self):
        found = learnable({"color": self.color, "kind": self.kind}, "per-attribute")
        np.testing.assert_array_equal(found["color"].codes, [0, 0, 1, 1, -1])
        np.testing.assert_array_equal(found["kind"].codes, self.kind.codes)

    def test_one_head_for_all_leaves_out_what_becomes_lone_too(self):
        found = learnable({"color": self.color, "kind": self.kind}, "multi-label")
        # Without the only c, one image of kind b is left, and without that, one of color b.
        np.testing.assert_array_equal(found["color"].codes, [0, 0, -1, -1, -1])

    def test_combinations_count_as_classes_of_a_joint_head(self):
        kind = exclusive_labels([0, 0, 1, 1, 0, 0, 0, 1], 2, "kind")
        color = exclusive_labels([0, 0, 0, 0, 1, 1, 1, 1], 2, "color")
        found = learnable({"color": color, "kind": kind}, "joint")
        np.testing.assert_array_equal(found["color"].labelled, np.arange(8) < 7)
