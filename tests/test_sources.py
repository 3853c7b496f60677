"""Images are read from folders, tar files and URLs, or the reason is told."""

import functools
import http.server
import importlib.util
import io
import os
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractFileSystem

from featurepipe.errors import ManifestError, SourceError, UsageError
from featurepipe.sources import (
    UNKNOWN,
    LocalFolder,
    TarArchive,
    absolute_place,
    open_archive,
    open_source,
    parent_place,
    patience,
    protocol,
)
from featurepipe.sources.entries import Entry, entry_of

FILES = {"cat/a.jpg": b"meow", "cat/b.jpg": b"purr" * 300, "dog/c.png": b"", "notes.txt": b"x"}


def tar_bytes(files: dict[str, bytes], *others: tarfile.TarInfo, **options) -> bytes:
    """A tar file of some files, and of members of other kinds."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for other in others:
            archive.addfile(other)
    return buffer.getvalue()


def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


class FlakyFileSystem(MemoryFileSystem):
    """Files of the memory, read with `trouble`."""

    protocol = "flaky"
    cachable = False
    trouble = staticmethod(lambda path: None)

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("flaky://"))

    def cat_file(self, path, start=None, end=None, **options):
        type(self).trouble(path)
        return super().cat_file(path, start, end, **options)


@pytest.fixture
def flaky(monkeypatch):
    """Twenty-five images at flaky://data, and a list of the reads that were tried."""
    fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.01)
    tried = []

    def trouble_with(trouble):
        def note(path):
            tried.append(path)
            trouble(len(tried))

        monkeypatch.setattr(FlakyFileSystem, "trouble", staticmethod(note))
        return tried

    memory = MemoryFileSystem()
    memory.pipe({f"/data/{number:02}.jpg": b"%d" % number for number in range(25)})
    yield trouble_with
    memory.store.clear()


@pytest.fixture
def memory():
    """fsspec's file system in memory, emptied afterwards."""
    file_system = MemoryFileSystem()
    yield file_system
    file_system.store.clear()


class TestLocalFolder:
    def test_bytes_sizes_and_times(self, tmp_path):
        for name, data in FILES.items():
            write(tmp_path / name, data)
        os.utime(tmp_path / "cat/a.jpg", ns=(5, 1_700_000_000_000_000_001))
        source = open_source(str(tmp_path))
        assert isinstance(source, LocalFolder)
        assert source.read("cat/b.jpg") == FILES["cat/b.jpg"]
        stamps = source.stamps(["cat/a.jpg", "gone.jpg"])
        assert stamps.tolist() == [[4, 1_700_000_000_000_000_001], [UNKNOWN, UNKNOWN]]
        assert source.stamps([]).shape == (0, 2)

    def test_what_cannot_be_read_says_why(self, tmp_path, monkeypatch):
        write(tmp_path / "large.jpg", b"12345")
        (tmp_path / "folder.jpg").mkdir()
        source = open_source(str(tmp_path))
        with pytest.raises(FileNotFoundError):
            source.read("gone.jpg")
        with pytest.raises(OSError, match="not a regular file"):
            source.read("folder.jpg")
        monkeypatch.setattr(protocol, "MAX_IMAGE_BYTES", 4)
        with pytest.raises(OSError, match="larger than 4e-06 MB"):
            source.read("large.jpg")

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes among files")
    def test_a_pipe_is_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.jpg")
        with pytest.raises(OSError, match="not a regular file"):
            open_source(str(tmp_path)).read("pipe.jpg")

    def test_the_limit_is_512_mb(self):
        protocol.refuse_large(512_000_000)
        with pytest.raises(OSError, match=r"^larger than 512 MB$"):
            protocol.refuse_large(512_000_001)


class TestTar:
    @pytest.mark.parametrize(
        "layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
    )
    def test_members_are_read_where_they_lie(self, tmp_path, layout):
        long = f"./{'deep/' * 30}ünïcode.jpg"
        path = write(
            tmp_path / "x.tar",
            tar_bytes(FILES | {long: b"far"}, format=layout)
            if layout != tarfile.USTAR_FORMAT
            else tar_bytes(FILES, format=layout),
        )
        os.utime(path, ns=(5, 7_000_000_001))
        source = open_source(str(path))
        assert isinstance(source, TarArchive)
        for name, data in FILES.items():
            assert source.read(name) == data
        if layout != tarfile.USTAR_FORMAT:
            assert source.read(long.removeprefix("./")) == b"far"
        stamps = source.stamps(["cat/a.jpg", "dog/c.png", "gone.jpg"])
        assert stamps.tolist() == [[4, 7_000_000_001], [0, 7_000_000_001], [UNKNOWN, UNKNOWN]]
        with pytest.raises(OSError, match="not in the archive"):
            source.read("gone.jpg")
        assert [path.name for path in tmp_path.iterdir()] == ["x.tar"]

    def test_threads_read_at_once(self, tmp_path):
        files = {f"{number}.jpg": b"%d" % number * (number + 1) for number in range(300)}
        source = open_source(str(write(tmp_path / "x.tar", tar_bytes(files))))
        with ThreadPoolExecutor(16) as pool:
            ids = list(files) * 5
            assert list(pool.map(source.read, ids)) == [files[image_id] for image_id in ids]

    def test_the_last_member_of_a_name_counts(self, tmp_path):
        once, again = tar_bytes({"a.jpg": b"old", "b.jpg": b"b"}), tar_bytes({"a.jpg": b"new"})
        ends = once.rstrip(b"\0")
        joined = ends + b"\0" * (-len(ends) % 512) + again
        assert open_source(str(write(tmp_path / "x.tar", joined))).read("a.jpg") == b"new"

    def test_members_that_lead_elsewhere_are_left_out(self, tmp_path):
        secret = write(tmp_path / "secret.jpg", b"secret")
        names = {"../evil.jpg": b"e", "/abs.jpg": b"e", "a/../../up.jpg": b"e", "good.jpg": b"g"}
        others = [
            member("link.jpg", tarfile.SYMTYPE, str(secret)),
            member("hard.jpg", tarfile.LNKTYPE, "good.jpg"),
            member("pipe.jpg", tarfile.FIFOTYPE),
            member("device.jpg", tarfile.CHRTYPE),
            member("folder", tarfile.DIRTYPE),
        ]
        path = write(tmp_path / "in" / "x.tar", tar_bytes(names, *others))
        source = open_archive(str(path))
        assert source.names == ["good.jpg"]
        assert source.left_out == {
            "its name points outside the archive": ["../evil.jpg", "/abs.jpg", "a/../../up.jpg"],
            "a link": ["link.jpg", "hard.jpg"],
            "not a regular file": ["pipe.jpg", "device.jpg"],
        }
        for name in ("../evil.jpg", "link.jpg", "../secret.jpg"):
            with pytest.raises(OSError, match="not in the archive"):
                source.read(name)
        found = sorted(path.name for path in tmp_path.rglob("*"))
        assert found == ["in", "secret.jpg", "x.tar"]

    @pytest.mark.parametrize("n_bytes", [0, 100, 512, 600, 1024, 1536, 2048, 3000, 3072])
    def test_a_truncated_file_is_an_error(self, tmp_path, n_bytes):
        whole = tar_bytes({"a.jpg": b"a" * 1000, "b.jpg": b"b" * 1000})
        path = write(tmp_path / "x.tar", whole[:n_bytes])
        with pytest.raises(ManifestError, match=r"x\.tar is not a valid tar file \(") as caught:
            open_source(str(path))
        assert "\n" not in str(caught.value)

    def test_spoilt_bytes_never_crash(self, tmp_path):
        whole = tar_bytes({"a.jpg": b"a" * 10, "é" * 80: b"b"}, format=tarfile.PAX_FORMAT)
        for position in range(0, 4096, 13):
            spoilt = bytearray(whole)
            spoilt[position] ^= 0xA5
            try:
                source = open_archive(str(write(tmp_path / "x.tar", spoilt)))
            except ManifestError:
                continue
            assert all(len(source.read(name)) <= 10 for name in source.names)

    def test_a_damaged_header_in_the_middle_is_not_the_end(self, tmp_path):
        spoilt = bytearray(tar_bytes({"a.jpg": b"a", "b.jpg": b"b", "c.jpg": b"c"}))
        spoilt[1024 + 150] ^= 1
        with pytest.raises(ManifestError, match="damaged or truncated at byte 1024"):
            open_source(str(write(tmp_path / "x.tar", spoilt)))

    def test_a_size_beyond_the_file_is_an_error(self, tmp_path):
        info = tarfile.TarInfo("a.jpg")
        info.size = 10**12
        path = write(tmp_path / "x.tar", info.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
        with pytest.raises(ManifestError, match="not a valid tar file"):
            open_source(str(path))

    def test_a_header_without_an_end_takes_no_memory(self, tmp_path):
        name = tarfile.TarInfo("././@LongLink")
        name.type, name.size = tarfile.GNUTYPE_LONGNAME, 2**34
        path = write(tmp_path / "x.tar", name.tobuf(tarfile.GNU_FORMAT))
        with path.open("r+b") as file:
            file.truncate(2**35)
        with pytest.raises(ManifestError, match="endless header"):
            open_source(str(path))

    def test_headers_of_headers_are_an_error(self, tmp_path):
        name = tarfile.TarInfo("././@LongLink")
        name.type, name.size = tarfile.GNUTYPE_LONGNAME, 1
        chain = (name.tobuf(tarfile.GNU_FORMAT) + b"x" + bytes(511)) * 5000
        with pytest.raises(ManifestError, match="not a valid tar file"):
            open_source(str(write(tmp_path / "x.tar", chain)))

    @pytest.mark.parametrize("mode", ["gz", "bz2", "xz"])
    def test_a_compressed_file_says_what_to_do(self, tmp_path, mode):
        for name in (f"x.tar.{mode}", "x.tar"):
            with tarfile.open(tmp_path / name, f"w:{mode}") as archive:
                archive.add(write(tmp_path / "a.jpg", b"a"), "a.jpg")
            with pytest.raises(ManifestError, match=r"is compressed: .* Decompress it first \("):
                open_source(str(tmp_path / name))

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(ManifestError, match=r"gone\.tar, where the images were, is gone"):
            open_source(str(tmp_path / "gone.tar"))

    def test_a_file_that_changes_meanwhile_is_seen(self, tmp_path):
        path = write(tmp_path / "x.tar", tar_bytes({"a.jpg": b"a"}))
        source = open_source(str(path))
        write(path, tar_bytes({"b.jpg": b"something else", "a.jpg": b"a"}))
        with pytest.raises(OSError, match=r"x\.tar has changed since it was opened"):
            source.read("a.jpg")

    def test_a_large_member_is_refused(self, tmp_path, monkeypatch):
        source = open_source(str(write(tmp_path / "x.tar", tar_bytes({"a.jpg": b"12345"}))))
        monkeypatch.setattr(protocol, "MAX_IMAGE_BYTES", 4)
        with pytest.raises(OSError, match="larger than"):
            source.read("a.jpg")

    def test_shards_come_with_their_names(self, tmp_path):
        for number in range(70):
            write(tmp_path / f"s-{number:02}.tar", tar_bytes({"a.jpg": b"%d" % number}))
        write(tmp_path / "._s-00.tar", b"what macOS leaves")
        source = open_archive(f"{tmp_path}/s-*.tar")
        assert source.names == [f"s-{number:02}.tar/a.jpg" for number in range(70)]
        assert [source.read(name) for name in source.names] == [b"%d" % n for n in range(70)]
        assert (source.stamps(source.names)[:, 0] == [1] * 10 + [2] * 60).all()
        with pytest.raises(ManifestError, match=r"No tar file matches .*t-\*\.tar"):
            open_archive(f"{tmp_path}/t-*.tar")

    def test_small_texts_are_kept(self, tmp_path):
        files = {"1.cls": b"cat", "1.JSON": b"{}", "1.jpg": b"x", "2.json": b"x" * 70_000}
        path = write(tmp_path / "x.tar", tar_bytes(files))
        source = open_archive(str(path), (".cls", ".json"))
        assert source.texts == {"1.cls": b"cat", "1.JSON": b"{}"}
        assert source.left_out == {"larger than 65536 bytes": ["2.json"]}
        assert open_archive(str(path)).texts == {}


class TestRemote:
    def test_a_folder_is_listed_and_read(self, memory):
        memory.pipe({f"/data/{name}": data for name, data in FILES.items()})
        source = open_source("memory://data")
        assert sorted(source.names()) == sorted(FILES)
        assert source.read("cat/b.jpg") == FILES["cat/b.jpg"]
        sizes, times = source.stamps(["cat/a.jpg", "gone.jpg", "dog/c.png"]).T
        assert sizes.tolist() == [4, UNKNOWN, 0]
        assert times[1] == UNKNOWN
        assert abs(times[0] / 1e9 - time.time()) < 60
        with pytest.raises(OSError, match=r"^no such file$"):
            source.read("gone.jpg")

    def test_a_changed_file_has_another_stamp(self, memory):
        memory.pipe("/data/a.jpg", b"one")
        before = open_source("memory://data").stamps(["a.jpg"])
        memory.pipe("/data/a.jpg", b"two")
        after = open_source("memory://data").stamps(["a.jpg"])
        assert before[0, 0] == after[0, 0]
        assert before[0, 1] < after[0, 1]

    def test_a_root_without_a_name(self, memory):
        memory.pipe("/a.jpg", b"a")
        source = open_source("memory://")
        assert ([*source.names()], source.read("a.jpg")) == (["a.jpg"], b"a")

    def test_a_folder_that_cannot_be_listed_is_not_left_out(self, memory, monkeypatch):
        memory.pipe({f"/data/{name}": data for name, data in FILES.items()})
        monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.01)
        fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
        tried, n_failing, ls = [], 3, MemoryFileSystem.ls

        def failing(self, path, **options):
            tried.append(path)
            if path == "/data/dog" and tried.count(path) <= n_failing:
                raise ConnectionResetError(104, "Connection reset by peer")
            return ls(self, path, **options)

        monkeypatch.setattr(FlakyFileSystem, "ls", failing)
        # As that of most file systems, it asks for each folder.
        monkeypatch.setattr(FlakyFileSystem, "find", AbstractFileSystem.find)
        with pytest.raises(
            SourceError, match=r"Cannot list flaky://data \(Connection reset by peer, 3 tries\)\."
        ):
            list(open_source("flaky://data").names())
        tried.clear()
        n_failing = 1
        assert sorted(open_source("flaky://data").names()) == sorted(FILES)
        # Only the folder that failed is asked for again.
        assert sorted(tried) == ["/data", "/data/cat", "/data/dog", "/data/dog"]

    def test_where_one_request_lists_many_folders_each_part_is_listed_once(
        self, memory, monkeypatch
    ):
        fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
        names = ["x/a.jpg", "x/cat/1.jpg", "x/cat/deep/2.jpg", "x/dog/3.jpg", "x/dog/more/4.jpg"]
        memory.pipe({f"/data/{name}": b"1" for name in names})
        tried, find = [], MemoryFileSystem.find

        def finding(self, path, **options):
            tried.append(path)
            return find(self, path, **options)

        monkeypatch.setattr(FlakyFileSystem, "find", finding)
        source = open_source("flaky://data")
        assert sorted(source.names()) == names
        assert sorted(tried) == ["/data/x/cat", "/data/x/dog"]
        assert source.stamps(names)[:, 0].tolist() == [1] * 5

    def test_a_large_file_is_refused_unread(self, flaky, monkeypatch):
        tried = flaky(lambda n: None)
        monkeypatch.setattr(protocol, "MAX_IMAGE_BYTES", 1)
        source = open_source("flaky://data")
        assert source.read("07.jpg") == b"7"
        with pytest.raises(OSError, match="larger than"):
            source.read("12.jpg")
        assert tried == ["/data/07.jpg"]

    def test_a_tar_file_is_read_in_parts(self, memory):
        files = {f"{number}.jpg": b"%d" % number * 50_000 for number in range(200)}
        memory.pipe("/data/x.tar", tar_bytes(files))
        source = open_source("memory://data/x.tar")
        assert isinstance(source, TarArchive)
        assert source.names == list(files)
        assert source.read("150.jpg") == files["150.jpg"]
        stamps = source.stamps(["150.jpg"])
        assert stamps[0, 0] == 150_000
        assert stamps[0, 1] == int(memory.created("/data/x.tar").timestamp() * 1e9)

    def test_a_tar_file_out_of_reach_says_why(self, flaky):
        MemoryFileSystem().pipe("/data/x.tar", tar_bytes(FILES))

        def fail(n):
            raise ConnectionResetError(104, "Connection reset by peer")

        flaky(fail)
        message = r"Cannot read .*x\.tar \(Connection reset by peer, 3 tries\)"
        with pytest.raises(SourceError, match=message):
            open_source("flaky://data/x.tar")

    def test_shards_at_a_url(self, memory):
        for number in range(3):
            memory.pipe(f"/data/s-{number}.tar", tar_bytes({"a.jpg": b"%d" % number}))
        memory.pipe("/data/sub/s-9.tar", b"")
        source = open_archive("memory://data/s-*.tar")
        assert source.names == ["s-0.tar/a.jpg", "s-1.tar/a.jpg", "s-2.tar/a.jpg"]
        assert source.read("s-2.tar/a.jpg") == b"2"

    def test_a_tar_file_that_is_not_there_is_named(self, memory):
        with pytest.raises(SourceError, match=r"Cannot reach memory://x\.tar \(no such file\)"):
            open_source("memory://x.tar")


class TestPatience:
    def test_what_fails_twice_is_read(self, flaky):
        def fail_twice(n):
            if n < 3:
                raise ConnectionResetError(104, "Connection reset by peer")

        tried = flaky(fail_twice)
        assert open_source("flaky://data").read("07.jpg") == b"7"
        assert len(tried) == 3

    def test_what_always_fails_says_why(self, flaky):
        def fail(n):
            raise ConnectionResetError(104, "Connection reset by peer")

        tried = flaky(fail)
        with pytest.raises(OSError, match=r"^Connection reset by peer, 3 tries$"):
            open_source("flaky://data").read("07.jpg")
        assert len(tried) == 3

    @pytest.mark.parametrize(
        "error", [PermissionError(13, "Access Denied"), IsADirectoryError("Access Denied")]
    )
    def test_an_answer_is_not_asked_for_again(self, flaky, error):
        def refuse(n):
            raise error

        tried = flaky(refuse)
        source = open_source("flaky://data")
        for number in range(25):
            with pytest.raises(OSError, match=r"^Access Denied$"):
                source.read(f"{number:02}.jpg")
        assert len(tried) == 25

    def test_a_client_s_error_of_the_web_is_an_answer(self, flaky):
        class ResponseError(Exception):
            def __init__(self, status):
                super().__init__(f"status {status}")
                self.status = status

        def refuse(n):
            raise ResponseError(403 if n == 1 else 503)

        tried = flaky(refuse)
        source = open_source("flaky://data")
        with pytest.raises(OSError, match=r"^status 403$"):
            source.read("07.jpg")
        with pytest.raises(OSError, match=r"^status 503, 3 tries$"):
            source.read("07.jpg")
        assert len(tried) == 4

    def test_what_stalls_is_given_up(self, flaky, monkeypatch):
        monkeypatch.setattr(patience, "TRY_SECONDS", 0.2)
        end = threading.Event()
        flaky(lambda n: end.wait(30))
        started = time.monotonic()
        with pytest.raises(OSError, match=r"^no answer within 0\.2 s, 3 tries$"):
            open_source("flaky://data").read("07.jpg")
        assert time.monotonic() - started < 5
        end.set()

    @pytest.mark.parametrize("listed", [True, False])
    def test_twenty_in_a_row_end_it(self, flaky, listed):
        def fail(n):
            raise TimeoutError("timed out")

        tried = flaky(fail)
        source = open_source("flaky://data")
        if listed:
            assert len([*source.names()]) == 25
        for number in range(19):
            with pytest.raises(OSError, match="timed out, 3 tries"):
                source.read(f"{number:02}.jpg")
        message = (
            r"flaky://data does not answer \(timed out, 3 tries, for 20 files in a row\)\. "
            "Finished work is kept. .* run the same command again"
        )
        with pytest.raises(SourceError, match=message):
            source.read("19.jpg")
        with pytest.raises(SourceError, match=message):
            source.read("20.jpg")
        assert len(tried) == 60

    def test_an_answer_in_between_begins_the_row_anew(self, flaky):
        def fail_but_for_one(n):
            if n != 46:
                raise TimeoutError("timed out")

        flaky(fail_but_for_one)
        source = open_source("flaky://data")
        for number in range(25):
            if number == 15:
                assert source.read("15.jpg") == b"15"
            else:
                with pytest.raises(OSError, match="timed out, 3 tries"):
                    source.read(f"{number:02}.jpg")

    def test_reads_that_never_end_are_bounded(self, flaky, monkeypatch):
        monkeypatch.setattr(patience, "TRY_SECONDS", 0.05)
        monkeypatch.setattr(patience, "MAX_HANGING", 4)
        end = threading.Event()
        flaky(lambda n: end.wait(30) if n % 4 else None)
        source = open_source("flaky://data")
        with pytest.raises(OSError, match="no answer"):
            source.read("00.jpg")
        assert source.read("01.jpg") == b"1"
        with pytest.raises(SourceError, match=r"does not answer \(4 reads have not ended\)"):
            source.read("02.jpg")
        end.set()


class TestEntries:
    def test_times_and_checksums(self):
        when = datetime(2024, 1, 2, tzinfo=UTC)
        at = 1_704_153_600_000_000_000
        assert entry_of({"size": 3, "mtime": 1_704_153_600.0, "created": 5.0}) == Entry(3, at)
        assert entry_of({"size": 3, "LastModified": when}) == Entry(3, at)
        assert entry_of({"size": 3, "last_modified": when.replace(tzinfo=None)}) == Entry(3, at)
        assert entry_of({"size": 3, "created": when}) == Entry(3, at)
        one, other = (entry_of({"size": 3, "ETag": tag, "created": when}) for tag in ("a", "b"))
        assert one.mtime != other.mtime
        assert all(0 <= entry.mtime < 2**63 for entry in (one, other))

    def test_half_a_stamp_is_none(self):
        assert entry_of({"size": 3}).stamp == (UNKNOWN, UNKNOWN)
        assert entry_of({"size": None, "mtime": 5.0}).stamp == (UNKNOWN, UNKNOWN)


class TestPlaces:
    def test_paths_become_absolute_and_urls_stay(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert absolute_place("data/") == str(tmp_path / "data")
        assert absolute_place("s3://bucket/data/") == "s3://bucket/data"
        assert absolute_place("memory://") == "memory://"
        assert parent_place("memory://t.csv") == "memory://"
        assert parent_place("https://host/a/t.csv") == "https://host/a"
        assert parent_place(str(tmp_path / "t.csv")) == str(tmp_path)

    @pytest.mark.parametrize(
        "url",
        [
            "https://user:hunter2@host/data",
            "https://hunter2@host/data",
            "simplecache::https://user:hunter2@host/data",
            "s3://key:hunter2@bucket/data",
            "https://host/data.tar?token=hunter2",
            "https://host/data#hunter2",
        ],
    )
    def test_secrets_are_refused_and_not_repeated(self, url):
        with pytest.raises(UsageError, match=r"fsspec's configuration") as caught:
            absolute_place(url)
        assert "hunter2" not in str(caught.value)

    def test_a_url_that_was_made_a_path_is_an_error(self):
        with pytest.raises(UsageError, match="looks like a URL with merged slashes"):
            absolute_place(Path("s3://bucket/data"))

    def test_a_name_that_is_part_of_the_address_stays(self):
        url = "abfs://container@account.dfs.core.windows.net/data"
        assert absolute_place(url) == url


class TestPackages:
    @pytest.mark.parametrize(("url", "package"), [("s3://bucket/x", "s3fs"), ("gs://b/x", "gcsfs")])
    def test_a_missing_package_is_named(self, url, package, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, package, None)
        from fsspec.registry import _registry

        for known in ("s3", "s3a", "gs", "gcs"):
            _registry.pop(known, None)
        with pytest.raises(SourceError, match=rf"is missing .*Run: pip install {package}$"):
            open_source(url)

    def test_an_unknown_protocol_is_named(self):
        with pytest.raises(SourceError, match=r"Cannot read nope://x \(.*Expected a URL that"):
            open_source("nope://x")


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files, and parts of them."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        place = Path(self.translate_path(self.path))
        wanted = self.headers.get("Range")
        if not (wanted and place.is_file() and self.server.knows_ranges):
            super().do_GET()
            return
        start, end = map(int, wanted.removeprefix("bytes=").split("-"))
        part = place.read_bytes()[start : end + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{end}/{place.stat().st_size}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)


@pytest.mark.skipif(
    importlib.util.find_spec("aiohttp") is None, reason="aiohttp is not installed: no http://"
)
class TestWeb:
    @pytest.fixture
    def server(self, tmp_path):
        for name, data in (FILES | {"two words/d é.jpg": b"far"}).items():
            write(tmp_path / "data" / name, data)
        write(tmp_path / "data.tar", tar_bytes(FILES | {"x.jpg": b"x" * 2**23}))
        handler = functools.partial(RangeHandler, directory=str(tmp_path))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.knows_ranges = True
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        server.server_close()

    def test_a_folder_with_a_listing(self, server, tmp_path):
        source = open_source(f"{server.url}/data")
        assert sorted(source.names()) == sorted([*FILES, "two words/d é.jpg"])
        assert source.read("cat/b.jpg") == FILES["cat/b.jpg"]
        assert source.read("two words/d é.jpg") == b"far"
        before = source.stamps(["cat/a.jpg", "gone.jpg"])
        assert before[0, 0] == 4
        assert before[1].tolist() == [UNKNOWN, UNKNOWN]
        os.utime(tmp_path / "data/cat/a.jpg", (1, 1))
        assert open_source(f"{server.url}/data").stamps(["cat/a.jpg"])[0, 1] != before[0, 1]
        with pytest.raises(OSError, match=r"^no such file$"):
            source.read("gone.jpg")

    def test_a_tar_file(self, server):
        source = open_source(f"{server.url}/data.tar")
        assert source.names == [*FILES, "x.jpg"]
        assert source.read("cat/b.jpg") == FILES["cat/b.jpg"]
        assert source.read("x.jpg") == b"x" * 2**23

    def test_a_server_without_ranges_says_what_to_do(self, server):
        server.knows_ranges = False
        with pytest.raises(SourceError, match=r"range requests.* or download the file first"):
            open_source(f"{server.url}/data.tar")

    def test_nobody_there(self, monkeypatch):
        monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.01)
        with pytest.raises(SourceError, match=r"Cannot list http://127\.0\.0\.1:9/x \("):
            list(open_source("http://127.0.0.1:9/x").names())
        with pytest.raises(OSError, match=r", 3 tries$"):
            open_source("http://127.0.0.1:9/x").read("a.jpg")
        with pytest.raises(SourceError, match=r"Cannot reach .*x\.tar \(.*, 3 tries"):
            open_source("http://127.0.0.1:9/x.tar")
