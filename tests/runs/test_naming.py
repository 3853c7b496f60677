import json

import numpy as np
import pandas as pd
import pytest

from featurepipe.manifest import read_manifest
from featurepipe.runs.naming import digests_of, reserve_name
from featurepipe.runs.run_info import write_run_info
from featurepipe.splits import SplitSettings, make_splits
from featurepipe.workspace import Workspace
from run_infos import head_info

INPUTS, SETTINGS = [{"color": ["store"]}], {"head": "logistic"}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return make_manifest(tmp_path_factory.mktemp("images"), ["red", "blue"] * 10)


def make_manifest(folder, colours):
    names = [f"{row:02}.jpg" for row in range(len(colours))]
    for name in names:
        (folder / name).touch()
    pd.DataFrame({"path": names, "color": colours}).to_csv(folder / "labels.csv", index=False)
    return read_manifest(folder, labels=folder / "labels.csv")


def make_split(manifest, repeat=0, **settings):
    digests = {image_id: image_id for image_id in manifest.ids}
    return make_splits(manifest, digests, SplitSettings(**settings))[repeat]


def digests(manifest, split=None, inputs=INPUTS, family_inputs=INPUTS, settings=SETTINGS):
    split = split or make_split(manifest)
    return digests_of([inputs, settings], [family_inputs, settings], split, manifest)


class TestDigests:
    def test_the_same_fit_has_the_same_digests(self, manifest):
        first = digests(manifest)
        assert first == digests(manifest)
        assert len(first.run) == len(first.family) == 16
        assert first.run != first.family

    def test_the_name_and_number_of_the_split_do_not_matter(self, manifest):
        split = make_split(manifest)
        renamed = split.registered(7, [split.name])
        assert renamed.name == "test20-seed0-2"
        assert digests(manifest, renamed) == digests(manifest, split)

    def test_what_decides_a_run_matters(self, manifest, tmp_path):
        usual = digests(manifest)
        relabelled = make_manifest(tmp_path, ["red", "blue"] * 9 + ["blue", "red"])
        for others in (
            digests(manifest, settings={"head": "knn"}),
            digests(manifest, inputs=["other"], family_inputs=["other"]),
            digests(relabelled, make_split(manifest)),
            digests(manifest, make_split(manifest, seed=1)),
        ):
            assert others.run != usual.run
            assert others.family != usual.family

    def test_groups_of_images_matter(self, manifest):
        split = make_split(manifest)
        paired = make_split(manifest)
        paired.groups[:] = np.arange(len(split.ids)) // 2
        assert digests(manifest, paired).run != digests(manifest, split).run

    def test_repeats_are_of_one_family_however_many(self, manifest):
        repeats = [digests(manifest, make_split(manifest, k, repeats=3)) for k in range(3)]
        more = digests(manifest, make_split(manifest, 1, repeats=5))
        single = digests(manifest, make_split(manifest))
        assert {each.family for each in [*repeats, more, single]} == {single.family}
        assert len({each.run for each in repeats}) == 3
        assert (more.run, single.run) == (repeats[1].run, repeats[0].run)

    def test_features_chosen_by_trial_may_differ_within_a_family(self, manifest):
        one = digests(manifest, inputs=["grey"], family_inputs=["auto"])
        other = digests(manifest, inputs=["rgb"], family_inputs=["auto"])
        assert one.family == other.family
        assert one.run != other.run


class TestNames:
    @pytest.fixture
    def home(self, tmp_path):
        return Workspace(tmp_path)

    def save(self, home, name, digest):
        write_run_info(home.run(name), head_info(digest=digest))

    def test_the_title_is_the_name_of_the_first(self, home):
        assert reserve_name(home, "xception-knn", "a") == "xception-knn"

    def test_the_first_free_number_follows(self, home):
        self.save(home, "xception-knn", "a")
        assert reserve_name(home, "xception-knn", "b") == "xception-knn-2"
        self.save(home, "xception-knn-3", "c")
        assert reserve_name(home, "xception-knn", "b") == "xception-knn-2"
        self.save(home, "Xception-KNN-2", "b")
        assert reserve_name(home, "xception-knn", "d") == "xception-knn-4"

    def test_the_same_fit_takes_the_name_that_it_has(self, home):
        self.save(home, "xception-knn", "a")
        self.save(home, "xception-knn-2", "b")
        assert reserve_name(home, "xception-knn", "b") == "xception-knn-2"
        # A person may have renamed it.
        home.run("xception-knn").rename(home.run("winner"))
        assert reserve_name(home, "xception-knn", "a") == "winner"
        assert reserve_name(home, "xception-knn", "c") == "xception-knn"

    def test_a_damaged_run_is_replaced_by_the_same_fit_and_no_other(self, home):
        self.save(home, "xception-knn", "a")
        path = home.run("xception-knn") / "run.json"
        path.write_text(json.dumps({"digest": "a"}))
        assert reserve_name(home, "xception-knn", "a") == "xception-knn"
        path.write_text("{")
        assert reserve_name(home, "xception-knn", "a") == "xception-knn-2"

    def test_a_folder_that_is_no_run_is_left_alone(self, home):
        home.run("xception-knn").mkdir(parents=True)
        assert reserve_name(home, "xception-knn", "a") == "xception-knn-2"
