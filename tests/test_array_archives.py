"""Zip files of arrays that would fill the memory, or that lie about their content."""

import io
import struct
import zipfile
from contextlib import nullcontext

import numpy as np
import pytest

from featurepipe import array_archives
from featurepipe.array_archives import load_arrays, require_sound_archive


def npy(array):
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def header(text, version=1):
    """The beginning of an .npy file."""
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H", len(text)) + text.encode()


def described(descr, shape):
    return header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n")


def save(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)


NUMBERS = npy(np.arange(4))


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([("a.npy", NUMBERS), ("a.npy", NUMBERS)], "several members have the same name"),
        ([("a.txt", b"a")], "a.txt is no array"),
        ([("a.npy", NUMBERS[:-1])], "a.npy is not as large as its shape says"),
        ([("a.npy", NUMBERS + b"x")], "a.npy is not as large as its shape says"),
        ([("a.npy", described("'<f8'", "(10**9,)"))], "malformed node"),
        ([("a.npy", described("'<f8'", "(1000000000000,)"))], "a.npy is not as large as its"),
        ([("a.npy", described("'<U0'", "(1000000000000,)"))], "a.npy is not as large as its"),
        ([("a.npy", described("'<f8'", "(-1,)"))], "a.npy is not as large as its shape says"),
        ([("a.npy", described("'|O'", "(1,)") + b"12345678")], "a.npy holds Python objects"),
        ([("a.npy", header("{}", version=9))], "a.npy is of the version (9, 0)"),
        ([("a.npy", b"PK")], "EOF"),
    ],
)
def test_a_forged_archive_is_refused(tmp_path, members, said):
    path = tmp_path / "a.npz"
    with pytest.warns(UserWarning, match="Duplicate") if len(members) > 1 else nullcontext():
        save(path, members)
    with pytest.raises(ValueError, match=said.replace("(", r"\(").replace(")", r"\)")):
        load_arrays(path)


def test_a_bomb_is_refused_before_it_unpacks(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    save(path, [("a.npy", npy(np.zeros(10**6)))])
    monkeypatch.setattr(array_archives, "MAX_UNPACKED_BYTES", 10**6)
    monkeypatch.setattr(np, "load", None)
    with pytest.raises(ValueError, match=r"it would unpack to 8 MB"):
        load_arrays(path)


def test_other_compression_may_not_be_bounded(tmp_path):
    save(tmp_path / "a.npz", [("a.npy", NUMBERS)], zipfile.ZIP_LZMA)
    with pytest.raises(ValueError, match=r"a\.npy has the compression 14"):
        load_arrays(tmp_path / "a.npz")


def test_named_members_need_not_be_arrays(tmp_path):
    save(tmp_path / "a.skops", [("schema.json", b"{}"), ("1.npy", NUMBERS)])
    require_sound_archive(tmp_path / "a.skops", ["schema.json"])


def test_sound_arrays_come_back(tmp_path):
    arrays = {"a": np.arange(4), "b": np.array(["x", "yz"]), "c": np.array(True), "d": np.ones(0)}
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    loaded = load_arrays(tmp_path / "a.npz")
    assert {name: array.tolist() for name, array in loaded.items()} == {
        name: array.tolist() for name, array in arrays.items()
    }
