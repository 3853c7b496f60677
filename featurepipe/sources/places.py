"""Sources as text: absolute local paths and URLs."""

import re
from pathlib import Path, PurePosixPath

from featurepipe.errors import UsageError

TAR_SUFFIX = ".tar"
_COMPRESSED = re.compile(r"\.(?:tar\.\w+|tgz|tbz2?|txz|tzst)$", re.IGNORECASE)
_MERGED = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_QUERY = re.compile(r"[?#]")
_SECRETS = re.compile(r"(?<=://)[^/]*@|[?#].*")


def is_url(place: str) -> bool:
    """Whether a place is a URL, such as ``s3://bucket/images``.

    Parameters
    ----------
    place : str
    """
    return "://" in place


def is_web(place: str) -> bool:
    """Whether a place is on a web server, which may not list its files.

    Parameters
    ----------
    place : str
    """
    return place.lower().startswith(("http://", "https://"))


def absolute_place(place: Path | str) -> str:
    """The absolute path of a place; a URL without trailing slashes.

    Parameters
    ----------
    place : Path or str

    Raises
    ------
    UsageError
        If a URL contains a password or query, which would be saved, or is a `Path`.
    """
    text = str(place)
    if isinstance(place, Path) and _MERGED.match(text) and not place.exists():
        raise UsageError(
            f"The Path {text!r} looks like a URL with merged slashes. Pass URLs as str."
        )
    if not is_url(text):
        return str(Path(place).absolute())
    _refuse_secrets(text)
    scheme, _, path = text.rpartition("://")
    return f"{scheme}://{path.rstrip('/')}"


def parent_place(place: str) -> str:
    """The folder of a file.

    Parameters
    ----------
    place : str

    Examples
    --------
    >>> parent_place("s3://bucket/table.csv")
    's3://bucket'
    """
    if not is_url(place):
        return str(Path(place).parent)
    scheme, _, path = place.rpartition("://")
    return f"{scheme}://{path.rpartition('/')[0]}"


def name_of(place: str) -> str:
    """The last part of a place.

    Parameters
    ----------
    place : str
    """
    return PurePosixPath(place).name if is_url(place) else Path(place).name


def is_archive(place: str) -> bool:
    """Whether a name is that of a tar file, a pattern of tar files, or a compressed tar file.

    Parameters
    ----------
    place : str
    """
    return place.lower().endswith(TAR_SUFFIX) or is_compressed(place)


def is_compressed(place: str) -> bool:
    """Whether a name is that of a compressed tar file.

    Parameters
    ----------
    place : str
    """
    return bool(_COMPRESSED.search(place))


def _refuse_secrets(url: str) -> None:
    last = url.rpartition("::")[2]
    user = last.partition("://")[2].partition("/")[0].rpartition("@")[0]
    # A user name alone is part of some addresses, such as those of Azure; not on the web.
    has_user = ":" in user or (is_web(last) and bool(user))
    if has_user or (is_web(last) and _QUERY.search(last)):
        raise UsageError(
            f"The URL {_SECRETS.sub('…', url)} contains a {'password' if has_user else 'query'}, "
            "which would be saved in the workspace. Set credentials in the environment or in "
            "fsspec's configuration (~/.config/fsspec)."
        )
