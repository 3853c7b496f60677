"""Which images a store is compared with."""

import tarfile

from featurepipe.features.catalogue import images_of
from featurepipe.manifest import Manifest, read_manifest


def test_images_in_an_archive_that_is_gone_are_not_at_hand(tmp_path, caplog):
    (tmp_path / "a.jpg").write_bytes(b"a")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(tmp_path / "a.jpg", "a.jpg")
    read_manifest(tmp_path / "x.tar").save(tmp_path / "m.parquet")
    manifest = Manifest.load(tmp_path / "m.parquet")
    assert images_of(manifest).read("a.jpg") == b"a"
    (tmp_path / "x.tar").unlink()
    assert images_of(manifest) is None
    assert f"{tmp_path / 'x.tar'}, where the images were, is gone" in caplog.text
    assert images_of(None) is None
