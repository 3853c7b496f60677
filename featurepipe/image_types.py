"""Types of image files: which are read, and which others look like images, by their names."""

import os
from collections import Counter
from collections.abc import Collection
from functools import cache
from importlib.util import find_spec

from featurepipe.words import counted

READ = "JPEG, PNG, WebP, BMP, GIF, TIFF, PPM, AVIF or HEIC"
"""Names of the formats that are read; AVIF and HEIC where something installed decodes them."""

INSTALL_HEIC = "pip install 'featurepipe[heic]'"

_ALWAYS_READ = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".pjp", ".mpo", ".png", ".apng", ".webp", ".bmp",
    ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
_AVIF = (".avif",)
_HEIC = (".heic", ".heif", ".hif")
_NEVER_READ = (
    ".avifs", ".dcm", ".dds", ".dib", ".djvu", ".emf", ".eps", ".exr", ".fits", ".hdr", ".heics",
    ".heifs", ".icns", ".ico", ".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx", ".jxl", ".pam",
    ".pcx", ".pfm", ".psb", ".psd", ".qoi", ".ras", ".sgi", ".svg", ".svgz", ".tga", ".wmf",
    ".xbm", ".xcf", ".xpm",
    # Raw files of cameras.
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".gpr", ".iiq",
    ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2",
    ".rwl", ".sr2", ".srf", ".srw", ".x3f",
)  # fmt: skip
_ALL = (*_ALWAYS_READ, *_AVIF, *_HEIC, *_NEVER_READ)


@cache
def reads_avif() -> bool:
    """Whether the installed Pillow decodes AVIF."""
    # Imported late: other commands need no Pillow.
    from PIL import features

    return bool(features.check("avif"))


@cache
def reads_heic() -> bool:
    """Whether pillow-heif is installed, which decodes HEIC."""
    return find_spec("pillow_heif") is not None


def image_suffixes() -> tuple[str, ...]:
    """Suffixes of the files that are read here."""
    return _ALWAYS_READ + (_AVIF if reads_avif() else ()) + (_HEIC if reads_heic() else ())


def is_image(name: str) -> bool:
    """Whether a file name has the suffix of an image that is read here.

    Parameters
    ----------
    name : str
    """
    return name.lower().endswith(image_suffixes())


def looks_like_image(name: str) -> bool:
    """Whether a file name has the suffix of an image, read or not.

    Parameters
    ----------
    name : str
    """
    return name.lower().endswith(_ALL)


def suffix_of(name: str) -> str:
    """The suffix of a file name in lower case, such as ``".jpg"``; empty if there is none.

    Parameters
    ----------
    name : str
    """
    return os.path.splitext(name)[1].lower()  # noqa: PTH122


def unread_types(suffixes: Counter[str]) -> str:
    """How many images of which types are not read, such as ``"2 .heic, 1 .nef"``.

    Parameters
    ----------
    suffixes : Counter of str
        How many images have which suffix.
    """
    return ", ".join(f"{count:,} {suffix}" for suffix, count in suffixes.most_common())


def how_to_read(suffixes: Collection[str]) -> str:
    """What to do about images that are not read: a clause.

    Parameters
    ----------
    suffixes : collection of str
        Their suffixes, at least one.
    """
    ways = []
    if any(suffix in _HEIC for suffix in suffixes) and not reads_heic():
        ways.append(f"install what reads HEIC ({INSTALL_HEIC})")
    if any(suffix in _AVIF for suffix in suffixes):
        ways.append("install a Pillow that reads AVIF (pip install --upgrade pillow)")
    return ", or ".join([*ways, "convert them to JPEG or PNG"])


def unread_finding(suffixes: Counter[str], first: str) -> str:
    """A line about images that are left out because their types are not read.

    Parameters
    ----------
    suffixes : Counter of str
        How many images have which suffix.
    first : str
        The name of one.
    """
    return (
        f"Ignoring {counted(suffixes.total(), 'image')} of a type that is not read "
        f"({unread_types(suffixes)}), such as {first}. To use them, {how_to_read(suffixes)}"
    )
