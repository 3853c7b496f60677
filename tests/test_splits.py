"""Splits keep groups together and every class on both sides, and come out the same again."""

import hashlib
import json
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from featurepipe.errors import SplitError, UnknownNameError
from featurepipe.manifest import Manifest, read_manifest
from featurepipe.splits import (
    Split,
    SplitSettings,
    divisible_ids,
    each_held_out,
    inner_folds,
    make_splits,
)
from featurepipe.splits.split_settings import split_name

N_FILES = 90


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Empty files 00.jpg, 01.jpg, …: labels come from tables."""
    folder = tmp_path_factory.mktemp("images")
    for row in range(N_FILES):
        (folder / name(row)).touch()
    return folder


def name(row: int) -> str:
    return f"{row:02}.jpg"


def make_manifest(folder: Path, columns: Mapping[str, list[str]], **options) -> Manifest:
    """A manifest of 00.jpg, 01.jpg, … with these columns."""
    n_images = len(next(iter(columns.values())))
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(["path", *columns])]
    lines += [",".join([name(k), *row]) for k, row in zip(range(n_images), rows, strict=True)]
    (folder / "table.csv").write_text("\n".join(lines))
    return read_manifest(folder / "table.csv", **options)


def distinct(manifest: Manifest) -> dict[str, bytes]:
    return {image_id: image_id.encode() for image_id in manifest.ids}


def part_of(split: Split) -> dict[str, str]:
    return dict(zip(split.ids, split.parts, strict=True))


def outline(split: Split) -> tuple[object, ...]:
    """Everything about a split, to be compared."""
    return (
        split.name, split.settings, split.repeat, split.ids.tolist(), split.parts.tolist(),
        split.groups.tolist(), split.left_out, split.findings, split.number,
    )  # fmt: skip


def assert_groups_never_part(split: Split, keys: Mapping[str, object]) -> None:
    sides: dict[object, set[str]] = {}
    for image_id, part in part_of(split).items():
        sides.setdefault(keys[image_id], set()).add(part)
    assert all(len(parts) == 1 for parts in sides.values())


class TestDrawing:
    def test_each_combination_gives_its_share(self, folder):
        manifest = make_manifest(
            folder,
            {"color": ["red"] * 40 + ["blue"] * 40, "kind": (["hat"] * 20 + ["shoe"] * 20) * 2},
        )
        (split,) = make_splits(manifest, distinct(manifest), SplitSettings(test_size=0.25))
        test = Counter(manifest.combinations()[split.ids[split.rows("test")]])
        assert test == {"red_hat": 5, "red_shoe": 5, "blue_hat": 5, "blue_shoe": 5}
        assert split.counts() == {"train": 60, "test": 20, "unseen": 0}
        assert split.ids.tolist() == manifest.ids.tolist()
        assert split.groups.dtype == np.int64
        assert split.findings == ()

    def test_remainders_add_up_to_the_share(self, folder):
        manifest = make_manifest(folder, {"label": ["a"] * 23 + ["b"] * 33 + ["c"] * 31})
        (split,) = make_splits(manifest, distinct(manifest), SplitSettings(test_size=0.2))
        test = Counter(manifest.table["label"][split.ids[split.rows("test")]])
        # Shares are 4.6, 6.6 and 6.2 of 17.4: the largest remainders come first.
        assert test == {("a",): 5, ("b",): 6, ("c",): 6} or test == {
            ("a",): 4,
            ("b",): 7,
            ("c",): 6,
        }

    def test_rare_sets_of_labels_are_pooled_not_lost(self, folder):
        pairs = [("a", k) for k in "bcdefg"] * 3
        cells = ["|".join(pair) for pair in pairs] + ["a"] * 30
        manifest = make_manifest(folder, {"tags": cells})
        (split,) = make_splits(manifest, distinct(manifest), SplitSettings(test_size=0.2))
        assert len(split.ids) == 48
        test = manifest.labels(split.ids[split.rows("test")])["tags"]
        assert dict(zip(test.classes, test.indicator.sum(axis=0).tolist(), strict=True)) == {
            "a": 10, "b": 1, "c": 1, "d": 1, "e": 1, "f": 1, "g": 1,
        }  # fmt: skip

    def test_rare_classes_go_before_the_share(self, folder):
        manifest = make_manifest(folder, {"label": [k for k in "abcdefghij" for _ in range(3)]})
        (split,) = make_splits(manifest, distinct(manifest), SplitSettings(test_size=0.1))
        assert split.counts() == {"train": 20, "test": 10, "unseen": 0}

    def test_images_without_label_or_digest_take_no_part(self, folder):
        manifest = make_manifest(
            folder, {"label": ["a", "b", "", "a", "b"] * 6, "mood": ["x", "x", "", "", "x"] * 6}
        )
        digests = distinct(manifest)
        del digests[name(0)], digests[name(2)]
        expected = [name(row) for row in range(30) if row % 5 != 2 and row != 0]
        (split,) = make_splits(manifest, digests, SplitSettings())
        assert split.ids.tolist() == expected
        assert divisible_ids(manifest, digests).tolist() == expected
        assert split.covers(divisible_ids(manifest, digests))
        assert not split.covers(manifest.ids)

    def test_nothing_to_divide_is_an_error(self, folder, tmp_path):
        manifest = make_manifest(folder, {"label": ["a", "b"]})
        with pytest.raises(SplitError, match="None of the 2 images has a label and features"):
            make_splits(manifest, {}, SplitSettings())
        (tmp_path / "a.jpg").touch()
        with pytest.raises(SplitError, match=r"\(1 have features\).*--labels"):
            make_splits(read_manifest(tmp_path), {"a.jpg": b""}, SplitSettings())

    def test_a_rare_class_is_named(self, folder):
        manifest = make_manifest(
            folder, {"color": ["red"] * 9 + ["blue"] * 2, "kind": ["hat"] * 11}
        )
        message = (
            "1 class has fewer than the 3 readable distinct images that a split needs: 'blue' of "
            "'color' (2). Add images, merge classes, or leave them out with --min-per-class 3."
        )
        with pytest.raises(SplitError, match=re.escape(message)):
            make_splits(manifest, distinct(manifest), SplitSettings())

    def test_all_rare_classes_are_named_and_can_be_left_out(self, folder):
        labels = ["a"] * 9 + ["b"] * 9 + ["c", "d", "d", "e", "f"]
        manifest = make_manifest(folder, {"label": labels})
        message = (
            "4 classes have fewer than the 3 readable distinct images that a split needs: 'c' of "
            "'label' (1), 'd' of 'label' (2), 'e' of 'label' (1), 'f' of 'label' (1). Add images, "
            "merge classes, or leave them out with --min-per-class 3."
        )
        with pytest.raises(SplitError, match=re.escape(message)):
            make_splits(manifest, distinct(manifest), SplitSettings())
        fewer = make_manifest(folder, {"label": labels}, min_per_class=3)
        (split,) = make_splits(fewer, distinct(fewer), SplitSettings())
        assert split.ids.tolist() == [name(row) for row in range(18)]

    def test_the_number_offered_counts_images_that_cannot_be_read(self, folder):
        manifest = make_manifest(folder, {"label": ["a"] * 20 + ["b"] * 6})
        digests = distinct(manifest)
        for row in range(20, 24):
            del digests[name(row)]
        with pytest.raises(SplitError, match=r"'b' of 'label' \(2\).* with --min-per-class 7\."):
            make_splits(manifest, digests, SplitSettings())
        fewer = make_manifest(folder, {"label": ["a"] * 20 + ["b"] * 6}, min_per_class=7)
        (split,) = make_splits(fewer, digests, SplitSettings())
        assert len(split.ids) == 20

    def test_copies_do_not_make_a_class_frequent(self, folder):
        manifest = make_manifest(folder, {"label": ["a"] * 9 + ["b"] * 5 + ["c"]})
        digests = {name(row): str(row if row < 9 else 9) for row in range(15)}
        # As few images as 'b' has are no fewer than 'a' has, of which all differ: 6 leaves 'a'.
        message = r"needs: 'b' of 'label' \(1\), 'c' of 'label' \(1\)\. .* --min-per-class 6\."
        with pytest.raises(SplitError, match=message):
            make_splits(manifest, digests, SplitSettings())

    def test_classes_that_cannot_all_be_on_both_sides_are_an_error(self, folder):
        # The lines of the Fano plane: however its points are divided, one line is on one side.
        lines = [(0, 1, 2), (0, 3, 4), (0, 5, 6), (1, 3, 5), (1, 4, 6), (2, 3, 6), (2, 4, 5)]
        cells = ["|".join(str(k) for k, line in enumerate(lines) if p in line) for p in range(7)]
        manifest = make_manifest(folder, {"tags": cells})
        with pytest.raises(SplitError, match="No split of 7 images has every class on both sides"):
            make_splits(manifest, distinct(manifest), SplitSettings(test_size=0.5))

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"test_size": 0.0}, "test size is 0.0, expected a share"),
            ({"test_size": 1}, "test size is 1, expected a share"),
            ({"test_size": float("nan")}, "test size is nan"),
            ({"repeats": 0}, "repeats is 0, expected at least 1"),
            ({"seed": -1}, "seed is -1, expected 0 or more"),
        ],
    )
    def test_settings_out_of_range_are_errors(self, values, message):
        with pytest.raises(SplitError, match=message):
            SplitSettings(**values)


class TestRepeats:
    def test_repeats_differ_and_the_first_is_the_single_one(self, folder):
        manifest = make_manifest(folder, {"label": ["a", "b"] * 20})
        single = make_splits(manifest, distinct(manifest), SplitSettings(seed=7))[0]
        repeats = make_splits(manifest, distinct(manifest), SplitSettings(seed=7, repeats=5))
        assert [split.repeat for split in repeats] == [0, 1, 2, 3, 4]
        assert len({tuple(split.parts) for split in repeats}) == 5
        assert repeats[0].divides_like(single)
        assert not repeats[1].divides_like(single)

    def test_repeats_are_of_one_series_however_many(self, folder):
        manifest = make_manifest(folder, {"kind": ["a", "b", "c"] * 8})
        digests = distinct(manifest)
        asked = [SplitSettings(seed=7), SplitSettings(seed=7, repeats=3)]
        splits = [split for each in asked for split in make_splits(manifest, digests, each)]
        renamed = splits[-1].registered(4, [splits[-1].name])
        assert {split.series for split in [*splits, renamed]} == {"test20-seed7"}
        (other,) = make_splits(manifest, digests, SplitSettings(seed=8))
        assert other.series == "test20-seed8"

    def test_splits_that_hold_out_one_combination_each_are_of_one_series(self, folder):
        labels = {"color": ["a", "a", "b", "b"] * 8, "kind": ["x", "y"] * 16}
        manifest = make_manifest(folder, labels)
        digests = distinct(manifest)
        each, _ = each_held_out(manifest, digests, SplitSettings())
        splits = [make_splits(manifest, digests, settings)[0] for settings in each]
        assert len({split.name for split in splits}) == 4
        assert {split.series for split in splits} == {"test20-seed0-without-each"}
        repeated = SplitSettings(hold_out=("a_x",), repeats=2)
        series = {split.series for split in make_splits(manifest, digests, repeated)}
        assert series == {"test20-seed0-without-a_x"}

    def test_seeds_make_other_splits(self, folder):
        manifest = make_manifest(folder, {"label": ["a", "b"] * 20})
        splits = [
            make_splits(manifest, distinct(manifest), SplitSettings(seed=seed))[0]
            for seed in range(5)
        ]
        assert len({tuple(split.parts) for split in splits}) == 5

    def test_the_draw_is_the_same_on_every_machine(self, folder):
        manifest = make_manifest(folder, {"label": ["a", "b"] * 10})
        (split,) = make_splits(manifest, distinct(manifest), SplitSettings(seed=3))
        assert split.ids[split.rows("test")].tolist() == ["03.jpg", "12.jpg", "13.jpg", "16.jpg"]


@st.composite
def problems(draw):
    """Labels of two attributes, digests with copies among them, patients, and settings."""
    n_images = draw(st.integers(6, N_FILES))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n_classes = draw(st.integers(1, 6))
    colors = rng.integers(0, n_classes, n_images)
    tags = rng.random((n_images, draw(st.integers(1, 3)))) < 0.5
    tags[0, 0] = True
    columns = {
        "color": [f"c{color}" for color in colors],
        "tags": ["|".join(f"t{k}" for k in np.flatnonzero(row)) for row in tags],
        "patient": [f"p{p}" for p in rng.integers(0, draw(st.integers(5, 60)), n_images)],
    }
    copies = rng.integers(0, draw(st.integers(n_images // 2, 10 * n_images)), n_images)
    digests = {name(row): bytes([copy % 256, copy // 256]) for row, copy in enumerate(copies)}
    asked = SplitSettings(
        test_size=draw(st.sampled_from([0.1, 0.2, 0.25, 0.5])),
        seed=draw(st.integers(0, 2**40)),
        group=draw(st.sampled_from([None, "patient"])),
        repeats=draw(st.integers(1, 2)),
    )
    return columns, digests, asked


def class_groups(
    manifest: Manifest, split_groups: Mapping[str, object]
) -> dict[object, set[object]]:
    """Groups of each class, worked out the slow way."""
    found: dict[object, set[object]] = {}
    for attribute in ("color", "tags"):
        for image_id, cell in manifest.table[attribute].items():
            for label in cell or ():
                found.setdefault((attribute, label), set()).add(split_groups[image_id])
    return found


def slow_groups(digests: Mapping[str, bytes], patients: Mapping[str, str] | None) -> dict[str, str]:
    """The smallest id of those that belong together, by spreading it until nothing changes."""
    group = {image_id: image_id for image_id in digests}
    changed = True
    while changed:
        changed = False
        for keys in (digests, patients or {}):
            least: dict[object, str] = {}
            for image_id, key in keys.items():
                least[key] = min(group[image_id], least.get(key, group[image_id]))
            for image_id, key in keys.items():
                if group[image_id] != least[key]:
                    group[image_id], changed = least[key], True
    return group


@settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(problem=problems())
def test_what_holds_for_every_split(folder, problem):
    columns, digests, asked = problem
    manifest = make_manifest(folder, columns, attributes=("color", "tags"))
    patients = dict(zip(manifest.ids, columns["patient"], strict=True)) if asked.group else None
    groups = slow_groups(digests, patients)
    of_class = class_groups(manifest, groups)
    try:
        splits = make_splits(manifest, digests, asked)
    except SplitError:
        assert min(len(members) for members in of_class.values()) < 3
        return
    assert min(len(members) for members in of_class.values()) >= 3
    assert len(splits) == asked.repeats
    for split in splits:
        parts = part_of(split)
        assert list(parts) == manifest.ids.tolist()
        assert set(parts.values()) == {"train", "test"}
        assert_groups_never_part(split, digests)
        assert_groups_never_part(split, groups)
        assert_groups_never_part(split, dict(zip(split.ids, split.groups, strict=True)))
        assert len(set(zip(split.groups, groups.values(), strict=True))) == len(set(split.groups))
        test_groups = {groups[image_id] for image_id, part in parts.items() if part == "test"}
        for members in of_class.values():
            assert 0 < len(members & test_groups) < len(members)
        largest = max(Counter(groups.values()).values())
        # At most one group for each class may be there against the share.
        slack = largest * (1 + len(of_class))
        assert abs(split.counts()["test"] - asked.test_size * len(parts)) <= slack
    again = make_splits(manifest, digests, asked)
    assert [outline(split) for split in again] == [outline(split) for split in splits]


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    counts=st.lists(st.integers(10, 25), min_size=1, max_size=3),
    test_size=st.floats(0.1, 0.5),
    seed=st.integers(0, 1000),
)
def test_without_copies_the_share_is_right_to_half_an_image(folder, counts, test_size, seed):
    labels = [f"c{k}" for k, count in enumerate(counts) for _ in range(count)]
    manifest = make_manifest(folder, {"label": labels})
    asked = SplitSettings(test_size=test_size, seed=seed)
    (split,) = make_splits(manifest, distinct(manifest), asked)
    assert abs(split.counts()["test"] - test_size * len(labels)) <= 0.5 + 1e-6
    test = Counter(manifest.table["label"][split.ids[split.rows("test")]])
    for k, count in enumerate(counts):
        assert abs(test[(f"c{k}",)] - test_size * count) < 1 + 1e-6


class TestGroups:
    def test_images_that_belong_together_through_others_stay_together(self, folder):
        # 0 and 1 are of one patient, 1 and 2 of the same bytes, 2 and 3 of another patient.
        patients = ["p", "p", "q", "q", *(f"r{k}" for k in range(36)), "", "", "", ""]
        manifest = make_manifest(
            folder, {"label": ["a", "b"] * 22, "patient": patients}, attributes=("label",)
        )
        digests = distinct(manifest) | {name(1): b"same", name(2): b"same"}
        for seed in range(5):
            asked = SplitSettings(group="patient", seed=seed)
            (split,) = make_splits(manifest, digests, asked)
            assert len(set(split.groups[:4])) == 1
            assert len(set(split.parts[:4])) == 1
            # A missing patient is nobody's.
            assert len(set(split.groups[-4:])) == 4

    def test_the_manifest_s_own_group_is_kept_without_asking(self, folder):
        columns = {"label": ["a", "b"] * 20, "patient": [f"p{k // 4}" for k in range(40)]}
        manifest = make_manifest(folder, columns, group="patient")
        (split,) = make_splits(manifest, distinct(manifest), SplitSettings())
        assert_groups_never_part(split, dict(zip(manifest.ids, columns["patient"], strict=True)))
        assert split.settings.group == "patient"
        assert split.name == "test20-seed0-by-patient"

    def test_a_class_of_few_patients_is_an_error(self, folder):
        columns = {"label": ["a"] * 10 + ["b"] * 10, "patient": [f"p{k // 5}" for k in range(20)]}
        manifest = make_manifest(folder, columns, attributes=("label",))
        message = (
            "2 classes have fewer than the 3 readable distinct values of 'patient' that a split "
            "needs: 'a' of 'label' (2), 'b' of 'label' (2). Add images, merge classes, or remove "
            "their labels."
        )
        with pytest.raises(SplitError, match=re.escape(message)):
            make_splits(manifest, distinct(manifest), SplitSettings(group="patient"))

    def test_an_unknown_group_is_named(self, folder):
        manifest = make_manifest(folder, {"label": ["a", "b"], "patient": ["p", "q"]})
        with pytest.raises(UnknownNameError, match=r"'patent'. Did you mean 'patient'\?"):
            make_splits(manifest, distinct(manifest), SplitSettings(group="patent"))


class TestNearDuplicates:
    def test_they_stay_together_with_what_belongs_to_them(self, folder):
        manifest = make_manifest(folder, {"label": ["a", "b"] * 20})
        # 0 and 1 have the same bytes, 1 and 2 are alike, and so are 4 and 5.
        digests = distinct(manifest) | {name(0): b"same", name(1): b"same"}
        alike = {name(1): 0, name(2): 0, name(4): 1, name(5): 1}
        for seed in range(5):
            asked = SplitSettings(seed=seed, group_duplicates=True)
            (split,) = make_splits(manifest, digests, asked, alike)
            assert len(set(split.groups[:3])) == len(set(split.groups[4:6])) == 1
            assert len(set(split.groups)) == 40 - 3
            assert len(set(split.parts[:3])) == len(set(split.parts[4:6])) == 1
            assert split.name == f"test20-seed{seed}-grouped"
            assert split.findings == (
                "Keeping 4 near-duplicate images together in 2 groups; the largest has 2",
            )

    def test_they_are_no_matter_unless_asked_for(self, folder):
        manifest = make_manifest(folder, {"label": ["a", "b"] * 20})
        alike = dict.fromkeys(manifest.ids, 0)
        (split,) = make_splits(manifest, distinct(manifest), SplitSettings(), alike)
        (plain,) = make_splits(manifest, distinct(manifest), SplitSettings())
        assert outline(split) == outline(plain)

    def test_a_class_that_is_one_chain_cannot_be_divided(self, folder):
        manifest = make_manifest(folder, {"label": ["a"] * 20 + ["b"] * 20})
        alike = {name(row): 0 for row in range(19)}
        message = (
            "1 class has fewer than the 3 readable distinct images that are not near-duplicates "
            "that a split needs: 'a' of 'label' (2). Add images, merge classes, or remove "
            "their labels. Without --group-duplicates, near-duplicates count separately."
        )
        with pytest.raises(SplitError, match=re.escape(message)):
            make_splits(manifest, distinct(manifest), SplitSettings(group_duplicates=True), alike)

    def test_training_images_like_given_test_images_are_left_out(self, folder):
        columns = {"label": ["a", "b"] * 10, "split": ["train"] * 15 + ["test"] * 5}
        manifest = make_manifest(folder, columns)
        asked = SplitSettings(group_duplicates=True)
        (split,) = make_splits(manifest, distinct(manifest), asked, {name(3): 0, name(19): 0})
        assert split.left_out == (name(3),)
        assert split.name == "given-grouped"


class TestGivenSplits:
    def make(self, folder, n_each=5, **options) -> Manifest:
        columns = {
            "label": ["a", "b"] * 2 * n_each,
            "split": ["train"] * 3 * n_each + ["test"] * n_each,
        }
        return make_manifest(folder, columns, **options)

    def test_it_serves_whatever_size_and_seed(self, folder):
        manifest = self.make(folder)
        (split,) = make_splits(manifest, distinct(manifest), SplitSettings())
        assert split.name == "given"
        assert split.parts.tolist() == manifest.table["split"].tolist()
        assert split.findings == ()
        (other,) = make_splits(manifest, distinct(manifest), SplitSettings(test_size=0.5, seed=3))
        assert other.divides_like(split)
        assert other.settings == split.settings == SplitSettings()
        assert other.findings == ("The images have a predefined split: ignoring --test-size 0.5",)

    def test_training_copies_of_test_images_are_left_out_and_said(self, folder):
        manifest = self.make(folder)
        digests = distinct(manifest) | {name(0): b"same", name(1): b"same", name(19): b"same"}
        (split,) = make_splits(manifest, digests, SplitSettings())
        assert split.left_out == (name(0), name(1))
        assert split.counts() == {"train": 13, "test": 5, "unseen": 0}
        assert split.findings == (
            "Leaving out 2 training images in one group with test images: 00.jpg, 01.jpg",
        )
        assert split.covers(manifest.ids)

    @pytest.mark.parametrize("asked", [{"repeats": 2}, {"hold_out": ("a_x",)}, {"group": "who"}])
    def test_another_one_may_be_asked_for(self, folder, asked):
        columns = {
            "label": ["a", "b"] * 20,
            "kind": ["x", "x", "y", "y"] * 10,
            "who": [str(k) for k in range(40)],
            "split": ["train", "test"] * 20,
        }
        manifest = make_manifest(folder, columns, attributes=("label", "kind"))
        for split in make_splits(manifest, distinct(manifest), SplitSettings(**asked)):
            assert split.name.startswith("test20-seed0-")
            assert split.parts.tolist() != manifest.table["split"].tolist()

    def test_a_class_without_training_images_is_an_error(self, folder):
        columns = {"label": ["a", "a", "b"], "split": ["train", "test", "test"]}
        manifest = make_manifest(folder, columns)
        message = "Classes without a training image in the predefined split: 'b' of 'label'."
        with pytest.raises(SplitError, match=message):
            make_splits(manifest, distinct(manifest), SplitSettings())

    def test_a_class_without_test_images_is_said(self, folder):
        columns = {"label": ["a", "a", "b"], "split": ["train", "test", "train"]}
        manifest = make_manifest(folder, columns)
        (split,) = make_splits(manifest, distinct(manifest), SplitSettings())
        assert split.findings == (
            "Classes without a test image in the predefined split: 'b' of 'label'",
        )

    def test_no_readable_test_image_is_an_error(self, folder):
        columns = {"label": ["a", "a", "b"], "split": ["train", "test", "train"]}
        manifest = make_manifest(folder, columns)
        digests = {name(0): b"0", name(2): b"2"}
        with pytest.raises(SplitError, match="no test image with a label and features"):
            make_splits(manifest, digests, SplitSettings())


class TestHoldingOut:
    def make(self, folder) -> Manifest:
        """40 images: red hats, red shoes, blue hats, blue shoes by turns."""
        columns = {"color": ["red", "red", "blue", "blue"] * 10, "kind": ["hat", "shoe"] * 20}
        return make_manifest(folder, columns)

    def test_a_combination_is_unseen_and_its_classes_are_not(self, folder):
        manifest = self.make(folder)
        (split,) = make_splits(manifest, distinct(manifest), SplitSettings(hold_out=("red_hat",)))
        combinations = manifest.combinations()
        assert set(combinations[split.ids[split.rows("unseen")]]) == {"red_hat"}
        for part in ("train", "test"):
            assert set(combinations[split.ids[split.rows(part)]]) == {
                "red_shoe",
                "blue_hat",
                "blue_shoe",
            }
        assert split.counts() == {"train": 24, "test": 6, "unseen": 10}
        assert split.name == "test20-seed0-without-red_hat"

    def test_an_image_that_lacks_a_label_is_of_no_combination(self, folder):
        columns = {"label": ["None", "b", "c"] * 8, "kind": ["x", "x", "y"] * 7 + ["", "x", "y"]}
        manifest = make_manifest(folder, columns)
        with pytest.raises(UnknownNameError, match="combination 'None'"):
            make_splits(manifest, distinct(manifest), SplitSettings(hold_out=("None",)))

    def test_what_belongs_together_with_them_is_left_out_and_said(self, folder):
        manifest = self.make(folder)
        digests = distinct(manifest) | dict.fromkeys([name(0), name(1), name(4)], b"same")
        (split,) = make_splits(manifest, digests, SplitSettings(hold_out=("red_hat",)))
        assert split.left_out == (name(1),)
        assert split.findings == ("Leaving out 1 image in one group with held-out images: 01.jpg",)
        assert split.counts()["unseen"] == 10
        assert split.covers(manifest.ids)

    def test_an_unknown_combination_is_named(self, folder):
        manifest = self.make(folder)
        with pytest.raises(
            UnknownNameError, match=r"combination 'red_hut'. Did you mean 'red_hat'\?"
        ):
            make_splits(manifest, distinct(manifest), SplitSettings(hold_out=("red_hut",)))

    def test_a_class_that_would_vanish_is_named(self, folder):
        manifest = self.make(folder)
        asked = SplitSettings(hold_out=("red_hat", "blue_hat"))
        message = (
            "Holding out blue_hat, red_hat leaves no training image of the class 'hat' of 'kind'"
        )
        with pytest.raises(SplitError, match=message):
            make_splits(manifest, distinct(manifest), asked)

    def test_the_order_of_names_plays_no_role(self, folder):
        columns = {"color": ["red", "blue", "green"] * 15, "kind": ["hat"] * 20 + ["shoe"] * 25}
        manifest = make_manifest(folder, columns)
        one = SplitSettings(hold_out=("red_hat", "blue_shoe"))
        other = SplitSettings(hold_out=["blue_shoe", "red_hat", "red_hat"])
        assert one == other
        (split,) = make_splits(manifest, distinct(manifest), one)
        assert split.name == "test20-seed0-without-blue_shoe+red_hat"


class TestHoldingOutEach:
    def test_each_combination_in_turn_is_as_if_asked_for_by_name(self, folder):
        columns = {"color": ["red", "red", "blue", "blue"] * 10, "kind": ["hat", "shoe"] * 20}
        manifest = make_manifest(folder, columns)
        asked = SplitSettings(seed=3)
        each, findings = each_held_out(manifest, distinct(manifest), asked)
        names = ["blue_hat", "blue_shoe", "red_hat", "red_shoe"]
        assert each == [SplitSettings(seed=3, hold_out=(name,)) for name in names]
        assert findings == []

    def test_combinations_whose_parts_are_nowhere_else_are_named(self, folder):
        # Green occurs with hats only; only two images have white elsewhere.
        pairs = ["red,hat", "red,shoe", "blue,hat", "blue,shoe", "green,hat", "white,shoe"]
        rows = [pair.split(",") for pair in pairs for _ in range(6)] + [["white", "hat"]] * 2
        columns = {"color": [row[0] for row in rows], "kind": [row[1] for row in rows]}
        manifest = make_manifest(folder, columns)
        each, findings = each_held_out(manifest, distinct(manifest), SplitSettings())
        assert [settings.hold_out for settings in each] == [
            ("blue_hat",), ("blue_shoe",), ("red_hat",), ("red_shoe",), ("white_hat",)
        ]  # fmt: skip
        assert findings == [
            "Combinations not held out, because a class would have fewer than 3 distinct images "
            "left: green_hat, white_shoe"
        ]

    def test_nothing_to_hold_out_is_an_error(self, folder):
        manifest = make_manifest(folder, {"label": ["a", "b"] * 5})
        with pytest.raises(SplitError, match="None of the 2 combinations can be held out"):
            each_held_out(manifest, distinct(manifest), SplitSettings())

    def test_a_class_that_is_rare_anyway_is_named(self, folder):
        columns = {"color": ["red"] * 9 + ["blue"] * 2, "kind": ["hat"] * 11}
        manifest = make_manifest(folder, columns)
        with pytest.raises(SplitError, match=r"needs: 'blue' of 'color' \(2\)"):
            each_held_out(manifest, distinct(manifest), SplitSettings())


class TestNames:
    def name(self, folder, group: str | None = None, **asked) -> str:
        columns = {"label": ["a", "b"] * 10, "who?": [str(k) for k in range(20)]}
        columns |= {"x-by-y": columns["who?"], "y" * 200: columns["who?"]}
        manifest = make_manifest(folder, columns, attributes=("label",))
        return make_splits(manifest, distinct(manifest), SplitSettings(group=group, **asked))[
            -1
        ].name

    @pytest.mark.parametrize(
        ("asked", "expected"),
        [
            ({}, "test20-seed0"),
            ({"test_size": 0.25, "seed": 12}, "test25-seed12"),
            ({"test_size": 0.125}, "test12.5-seed0"),
            ({"repeats": 5}, "test20-seed0-repeat5of5"),
        ],
    )
    def test_they_can_be_read(self, folder, asked, expected):
        assert self.name(folder, **asked) == expected

    @pytest.mark.parametrize(
        ("asked", "expected"),
        [
            ({"group": "who?"}, "test20-seed0-by-who_"),
            ({"group": "x-by-y"}, "test20-seed0-by-x-by-y"),
            ({"group": "y" * 200}, "test20-seed0-by-yyyyyyyyyyy"),
            ({"group": "who?", "repeats": 2}, "test20-seed0-by-who_-repeat2of2"),
            ({"test_size": 1 / 3}, "test33.33-seed0"),
            ({"group_duplicates": True, "repeats": 2}, "test20-seed0-grouped-repeat2of2"),
        ],
    )
    def test_they_are_short_and_safe_for_files(self, folder, asked, expected):
        assert self.name(folder, **asked) == expected

    @pytest.mark.parametrize(
        ("asked", "expected"),
        [
            ({"hold_out": ("black_dress",)}, "test20-seed0-without-black_dress"),
            ({"hold_out": ("a_b", "c_d")}, "test20-seed0-without-a_b+c_d"),
            (
                {"hold_out": tuple(f"one_green_{k}" for k in range(16))},
                "test20-seed0-without-16-combinations",
            ),
            (
                {"hold_out": ("one_green_striped_diamond",)},
                "test20-seed0-without-one_green_striped_d",
            ),
            (
                {"hold_out": ("black_dress",), "group": "patient"},
                "test20-seed0-without-black_dr-by-patient",
            ),
            # With no room for a combination that can be told, none is named.
            (
                {"hold_out": ("black_dress",), "group_duplicates": True, "repeats": 10},
                "test20-seed0-grouped-repeat1of10",
            ),
        ],
    )
    def test_long_ones_are_shortened(self, asked, expected):
        assert split_name(SplitSettings(**asked), 0) == expected

    @given(
        test_size=st.floats(1e-9, 1, exclude_max=True),
        seed=st.integers(0, 2**40),
        hold_out=st.lists(st.text(), max_size=20),
        group=st.none() | st.text(min_size=1),
        repeats=st.integers(1, 10**6),
        group_duplicates=st.booleans(),
    )
    def test_they_have_at_most_40_characters(self, **asked):
        asked["hold_out"] = tuple(asked["hold_out"])
        name = split_name(SplitSettings(**asked), asked["repeats"] - 1)
        assert re.fullmatch(r"test[A-Za-z0-9._+-]{1,36}", name)

    def test_what_a_name_does_not_tell_is_numbered(self, folder):
        manifest = make_manifest(folder, {"label": ["a", "b"] * 10})
        names: list[str] = []
        for k in range(12):
            asked = SplitSettings(test_size=0.3 + k * 1e-9, seed=10**30)
            (split,) = make_splits(manifest, distinct(manifest), asked)
            names.append(split.registered(k, names).name)
        assert len(set(names)) == 12
        assert max(map(len, names)) == 40
        assert names[1].endswith("-2")


class TestRegistering:
    def make(self, folder) -> Split:
        manifest = make_manifest(folder, {"label": ["a", "b"] * 10})
        return make_splits(manifest, distinct(manifest), SplitSettings())[0]

    def test_it_has_a_number_and_keeps_a_free_name(self, folder):
        split = self.make(folder).registered(3, {"given"})
        assert (split.number, split.name) == (3, "test20-seed0")

    def test_a_taken_name_is_numbered(self, folder):
        split = self.make(folder).registered(3, {"Test20-Seed0", "test20-seed0-2"})
        assert split.name == "test20-seed0-3"
        assert split.divides_like(self.make(folder))


class TestSaving:
    @settings(
        max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
    )
    @given(problem=problems(), number=st.integers(0, 99))
    def test_a_saved_split_comes_back(self, folder, tmp_path, problem, number):
        columns, digests, asked = problem
        manifest = make_manifest(folder, columns, attributes=("color",))
        try:
            split = make_splits(manifest, digests, asked)[-1].registered(number, ())
        except SplitError:
            return
        split = replace(split, findings=('käme\nein "Zitat"',), left_out=("ä.jpg",))
        split.save(tmp_path / "splits" / "one.json")
        loaded = Split.load(tmp_path / "splits" / "one.json")
        assert outline(loaded) == outline(split)
        assert (loaded.groups.dtype, loaded.parts.dtype, loaded.ids.dtype) == (
            np.int64,
            object,
            object,
        )
        loaded.save(tmp_path / "two.json")
        once = (tmp_path / "splits" / "one.json").read_bytes()
        assert (tmp_path / "two.json").read_bytes() == once
        assert [path.name for path in (tmp_path / "splits").iterdir()] == ["one.json"]

    def test_the_file_can_be_read_by_a_person(self, folder, tmp_path):
        manifest = make_manifest(folder, {"label": ["a", "b"] * 10})
        (split,) = make_splits(manifest, distinct(manifest), SplitSettings())
        split.save(tmp_path / "split.json")
        about = json.loads((tmp_path / "split.json").read_text())
        assert about["settings"] == asdict(SplitSettings()) | {"hold_out": []}
        assert list(about["group_of_image"]["test"]) == split.ids[split.rows("test")].tolist()
        assert f'   "{name(0)}": 0' in (tmp_path / "split.json").read_text()

    def save(self, folder, path):
        manifest = make_manifest(folder, {"label": ["a", "b"] * 10})
        make_splits(manifest, distinct(manifest), SplitSettings())[0].save(path)
        return json.loads(path.read_text())

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", "Invalid JSON: EOF"),
            ('{"format": 2, "na', "Invalid JSON: EOF"),
            ("[]", "Input should be an object"),
            ("[" * 100_000, "recursion limit exceeded"),
            ("{}", "name: Field required"),
        ],
    )
    def test_a_file_that_is_no_split_is_an_error(self, tmp_path, text, said):
        (tmp_path / "split.json").write_text(text)
        with pytest.raises(SplitError, match=r"Cannot read the split .*split\.json") as caught:
            Split.load(tmp_path / "split.json")
        assert said in str(caught.value)

    @pytest.mark.parametrize(
        ("field", "value", "said"),
        [
            ("format", 1, "format: Input should be 2"),
            ("name", None, "name: Input should be a valid string"),
            ("name", "../runs", "name: String should match pattern"),
            ("number", -1, "number: Input should be greater than or equal to 0"),
            ("repeat", True, "repeat: Input should be a valid integer"),
            ("findings", {}, "findings: Input should be a valid array"),
            ("left_out", [1], "left_out.0: Input should be a valid string"),
            ("settings", {"test_size": 2}, "The test size is 2.0, expected a share"),
            ("settings", {"mood": 2}, "settings.mood: Unexpected keyword argument"),
            ("group_of_image", None, "group_of_image: Input should be an object"),
            (
                "group_of_image",
                {"train": {"a": 10**30}, "test": {"b": 1}},
                "group_of_image.train.a",
            ),
            ("group_of_image", {"train": {"a": "x"}}, "group_of_image.train.a: Input should be a"),
            ("group_of_image", {"train": {"a": 0}, "test": {}}, "no image is in the part 'test'"),
            ("group_of_image", {"train": {"a": 0}, "test": {"a": 0}}, "image 'a' is in several"),
            ("mood", "good", "mood: Extra inputs are not permitted"),
        ],
    )
    def test_the_wrong_field_is_named(self, folder, tmp_path, field, value, said):
        path = tmp_path / "split.json"
        about = self.save(folder, path)
        path.write_text(json.dumps({**about, field: value}))
        with pytest.raises(SplitError, match=r"Cannot read the split .*split\.json") as caught:
            Split.load(path)
        assert said in str(caught.value)
        assert str(caught.value).endswith("Remove it, and run featurepipe fit again.")

    @pytest.mark.parametrize("edited", ["row", "group", "setting", "digest"])
    def test_an_edited_file_is_an_error(self, folder, tmp_path, edited):
        path = tmp_path / "split.json"
        about = self.save(folder, path)
        train, test = (about["group_of_image"][part] for part in ("train", "test"))
        if edited == "row":
            image = next(iter(test))
            train[image] = test.pop(image)
        elif edited == "group":
            train[next(iter(train))] = 99
        elif edited == "setting":
            about["settings"]["seed"] = 1
        else:
            about["sha256"] = "0" * 64
        path.write_text(json.dumps(about))
        with pytest.raises(SplitError, match=r"split\.json was edited or damaged: .* Remove it"):
            Split.load(path)

    def test_the_order_of_images_plays_no_role(self, folder, tmp_path):
        path = tmp_path / "split.json"
        about = self.save(folder, path)
        before = Split.load(path)
        images = about["group_of_image"]
        about["group_of_image"] = {part: dict(reversed(images[part].items())) for part in images}
        path.write_text(json.dumps(about))
        assert outline(Split.load(path)) == outline(before)

    def test_a_missing_or_foreign_file_is_an_error(self, tmp_path):
        (tmp_path / "foreign.json").write_bytes(b"\xff\x00")
        for path in ("missing.json", "foreign.json"):
            with pytest.raises(SplitError, match=rf"Cannot read the split .*{path} .*fit"):
                Split.load(tmp_path / path)


class TestInnerFolds:
    @settings(max_examples=100, deadline=None)
    @given(
        rows=st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 9)), min_size=2, max_size=40),
        n_folds=st.integers(2, 6),
        seed=st.integers(0, 2**40),
    )
    def test_every_row_is_validated_once_and_groups_stay(self, rows, n_folds, seed):
        strata, groups = np.array(rows).T
        if len(set(groups)) < 2:
            with pytest.raises(SplitError, match="At least 2 are needed"):
                inner_folds(strata, groups, n_folds, seed)
            return
        folds = inner_folds(strata, groups, n_folds, seed)
        assert 2 <= len(folds) <= min(n_folds, len(set(groups)))
        validated = np.concatenate([validation for _, validation in folds])
        assert sorted(validated) == list(range(len(rows)))
        for training, validation in folds:
            assert sorted([*training, *validation]) == list(range(len(rows)))
            assert not set(groups[training]) & set(groups[validation])
        again = inner_folds(strata, groups, n_folds, seed)
        for one, other in zip(folds, again, strict=True):
            np.testing.assert_array_equal(one[0], other[0])
            np.testing.assert_array_equal(one[1], other[1])

    @pytest.mark.parametrize("n_groups", [12, 60, 240])
    @pytest.mark.parametrize("n_classes", [2, 9])
    def test_folds_are_those_of_scikit_learn(self, n_classes, n_groups):
        rng = np.random.default_rng(n_groups)
        strata = rng.choice(n_classes, size=240, p=rng.dirichlet(np.ones(n_classes)))
        groups = rng.permutation(np.arange(240) % n_groups)
        seed = int(np.random.SeedSequence(7).generate_state(1)[0])
        theirs = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = [held_out for _, held_out in theirs.split(strata, strata, groups)]
        for (_, found), fold in zip(inner_folds(strata, groups, 5, 7), expected, strict=True):
            np.testing.assert_array_equal(found, fold)

    def test_strata_keep_their_share(self):
        strata = np.array(["a"] * 20 + ["b"] * 10)
        folds = inner_folds(strata, np.arange(30), 5, seed=0)
        assert [Counter(strata[validation]) for _, validation in folds] == [{"a": 4, "b": 2}] * 5

    def test_seeds_make_other_folds(self):
        strata = np.repeat([0, 1], 20)
        one, other = (inner_folds(strata, np.arange(40), 5, seed) for seed in (0, 1))
        assert one[0][1].tolist() != other[0][1].tolist()

    @pytest.mark.parametrize(("n_groups", "n_expected"), [(3, 3), (2, 2)])
    def test_few_groups_make_fewer_folds(self, n_groups, n_expected):
        groups = np.arange(24) % n_groups
        folds = inner_folds(np.repeat([0, 1], 12), groups, 5, seed=0)
        assert len(folds) == n_expected

    def test_rare_strata_are_no_trouble(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(inner_folds([0] * 20 + [1, 2, 2], np.arange(23), 5, seed=0)) == 5
            assert len(inner_folds(np.arange(8), np.arange(8), 2, seed=0)) == 2


@pytest.mark.shared
class TestRealFolders:
    def digests(self, manifest: Manifest) -> dict[str, bytes]:
        return {
            image_id: hashlib.sha256(manifest.images().read(image_id)).digest()
            for image_id in manifest.ids
        }

    def test_garments(self, shared):
        manifest = read_manifest(shared / "data" / "garments", attributes=("color", "category"))
        digests = self.digests(manifest)
        splits = make_splits(manifest, digests, SplitSettings(repeats=3))
        for split in splits:
            assert split.counts() == {"train": 1728, "test": 432, "unseen": 0}
            assert_groups_never_part(split, digests)
            test = manifest.combinations()[split.ids[split.rows("test")]].value_counts()
            shares = test / manifest.combinations().value_counts()
            assert shares.between(0.195, 0.205).all()

    def test_products(self, shared):
        manifest = read_manifest(shared / "data" / "products", attributes=("color", "category"))
        digests = self.digests(manifest)
        (split,) = make_splits(manifest, digests, SplitSettings(hold_out=("black_shirt",)))
        combinations = manifest.combinations()
        assert set(combinations[split.ids[split.rows("unseen")]]) == {"black_shirt"}
        assert combinations[split.ids[split.rows("test")]].nunique() == 45
        assert_groups_never_part(split, digests)
        n_divided = len(split.rows("train")) + len(split.rows("test"))
        assert abs(len(split.rows("test")) - 0.2 * n_divided) <= 1
