"""Places as text: absolute paths of this machine, and URLs."""

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
    """Whether a place lies on a web server, where listings are pages if there are any.

    Parameters
    ----------
    place : str
    """
    return place.lower().startswith(("http://", "https://"))


def absolute_place(place: Path | str) -> str:
    """A place by its absolute path; a URL as it is, less slashes at its end.

    Parameters
    ----------
    place : Path or str

    Raises
    ------
    UsageError
        If a URL holds a password or a query, since it would be saved; or is a `Path`.
    """
    text = str(place)
    if isinstance(place, Path) and _MERGED.match(text) and not place.exists():
        raise UsageError(
            f"Path {text!r} seems to be a URL, whose slashes a Path merges. Give it as text (str)."
        )
    if not is_url(text):
        return str(Path(place).absolute())
    _refuse_secrets(text)
    scheme, _, path = text.rpartition("://")
    return f"{scheme}://{path.rstrip('/')}"


def parent_place(place: str) -> str:
    """The folder that a file lies in.

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
    """Whether a place is named as a tar file, a pattern of some, or a compressed one.

    Parameters
    ----------
    place : str
    """
    return place.lower().endswith(TAR_SUFFIX) or is_compressed(place)


def is_compressed(place: str) -> bool:
    """Whether a place is named as a compressed tar file.

    Parameters
    ----------
    place : str
    """
    return bool(_COMPRESSED.search(place))


def _refuse_secrets(url: str) -> None:
    last = url.rpartition("::")[2]
    user = last.partition("://")[2].partition("/")[0].rpartition("@")[0]
    # A user's name alone is part of some addresses, such as those of Azure; not on the web.
    has_user = ":" in user or (is_web(last) and bool(user))
    if has_user or (is_web(last) and _QUERY.search(last)):
        raise UsageError(
            f"URL {_SECRETS.sub('…', url)} holds a {'password' if has_user else 'query'}: expected "
            "none, since URLs are saved with the images, and paths are joined to them. Put "
            "credentials into the environment or into fsspec's configuration (~/.config/fsspec)."
        )
