"""Images that folders label are labelled by kind: as each of them would be, and few are kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurepipe.errors import ManifestError
from featurepipe.manifest import Labelling
from featurepipe.manifest.image_labels import label_images
from featurepipe.manifest.kinds import KindCounter, Kinds
from featurepipe.manifest.listing import Listing

FOLDERS = ["", "cat/", "Cat/", "dog/", "dog/old/", "x/cat/", "x/dog/", "train/cat/", "train/dog/",
           "test/cat/", "val/dog/", "red_hat/", "blue_hat/", "shard.tar/cat/"]  # fmt: skip
IDS = st.sets(
    st.tuples(
        st.sampled_from(FOLDERS), st.sampled_from("abcdefg"), st.sampled_from([".jpg", ".png"])
    ).map("".join),
    min_size=1,
    max_size=30,
).map(sorted)
LABELLINGS = st.builds(
    Labelling,
    attributes=st.sampled_from([(), ("animal",), ("color", "kind")]),
    min_per_class=st.integers(1, 4),
)


def labelled(kinds, labelling):
    """Labels of each of `kinds.ids`, or the error."""
    try:
        found = label_images(kinds, {}, labelling)
    except ManifestError as error:
        return str(error)
    cells = {name: [of[kind] for kind in kinds.kind_of] for name, of in found.cells.items()}
    return cells, found.attribute_names, found.findings


@given(IDS, LABELLINGS)
def test_images_are_labelled_as_if_each_were_a_kind_of_its_own(ids, labelling):
    folders = [image_id.rpartition("/")[0] for image_id in ids]
    single = Kinds(folders, [1] * len(ids), ids, range(len(ids)))
    assert labelled(Kinds.of(ids, {}), labelling) == labelled(single, labelling)


@given(IDS, LABELLINGS)
def test_few_ids_of_each_kind_give_the_same_labels_and_findings(ids, labelling):
    listing = Listing(ids)
    assert list(listing) == ids
    whole, few = Kinds.of(ids, {}), listing.kinds
    assert (few.folders, few.counts) == (whole.folders, whole.counts)
    assert all(few.kind_of.count(kind) == min(n, 4) for kind, n in enumerate(few.counts))
    one, other = labelled(whole, labelling), labelled(few, labelling)
    if isinstance(one, tuple):
        one, other = one[1:], other[1:]
    assert one == other


def test_a_kind_is_a_folder_and_a_suffix():
    counter = KindCounter()
    ids = ["a/1.jpg", "a/2.JPG", "a/3.jpg", "a/b", "a/b.jpg/4.jpg", "b/5.jpg"]
    kind_of = [counter.add(image_id) for image_id in ids]
    assert kind_of == [0, 1, 0, 2, 3, 4]
    kinds = counter.kinds(ids, kind_of)
    assert kinds.folders == ["a", "a", "a", "a/b.jpg", "b"]
    assert (kinds.counts, kinds.n_images) == ([2, 1, 1, 1, 1], 6)
    assert kinds.suffixes([0, 1, 4]) == {".jpg": 4}
    assert kinds.first_ids([True, False, False, True, True]) == [
        "a/1.jpg",
        "a/3.jpg",
        "a/b.jpg/4.jpg",
        "b/5.jpg",
    ]


def test_some_of_the_kinds():
    ids = ["a/1.jpg", "a/2.nef", "b/3.nef", "c/4.jpg", "c/5.jpg"]
    kinds = Kinds.of(ids, {}).only([True, False, False, True])
    assert (kinds.folders, kinds.counts) == (["a", "c"], [1, 2])
    assert (kinds.ids, kinds.kind_of) == (["a/1.jpg", "c/4.jpg", "c/5.jpg"], [0, 1, 1])


def test_images_of_a_table_are_kinds_of_their_own():
    kinds = Kinds.of(["a/1.jpg", "a/2.jpg"], {"label": [("x",), ("y",)]})
    assert (kinds.counts, list(kinds.kind_of)) == ([1, 1], [0, 1])


@pytest.mark.parametrize("is_read", [True, False])
def test_what_is_not_read_is_said_with_its_types_in_order(is_read):
    names = ["a/1.psd", "a/2.nef", "b/1.nef", "b/2.PSD", "b/3.qoi", "c/\udcff.jpg"]
    listing = Listing([*names, "d/1.jpg"] if is_read else names)
    assert list(listing) == ["d/1.jpg"][: int(is_read)]
    assert listing.findings() == [
        "Ignoring 5 images of a type that is not read (2 .psd, 2 .nef, 1 .qoi), such as a/1.psd. "
        "To use them, convert them to JPEG or PNG",
        "Ignoring 1 image with a name that is not UTF-8: 'c/\\udcff.jpg'",
    ]
