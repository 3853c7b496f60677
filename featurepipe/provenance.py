"""Provenance of files: versions, machine, and differences in words."""

import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import featurepipe


def library_versions(*libraries: str) -> dict[str, str]:
    """Installed versions of featurepipe, Python and some libraries.

    Parameters
    ----------
    *libraries : str
        Names of distributions; missing ones are omitted.
    """
    versions = {"featurepipe": featurepipe.__version__, "python": platform.python_version()}
    for library in libraries:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    return versions


def machine() -> str:
    """Operating system and processor, such as ``"Linux-x86_64"``."""
    return f"{platform.system()}-{platform.machine()}"


def differences(made: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Differences between two descriptions, in words.

    Parameters
    ----------
    made, asked : mapping
        Description stored in a file, and the one requested now; may be nested.

    Returns
    -------
    list of str
        Empty if they are equal.

    Examples
    --------
    >>> made = {"size_px": 299, "weights": {"kind": "random"}}
    >>> asked = {"size_px": 224, "weights": {"kind": "imagenet"}}
    >>> for difference in differences(made, asked):
    ...     print(difference)
    size_px is 299, not 224
    weights.kind is 'random', not 'imagenet'
    """
    flat_made, flat_asked = dict(_flatten(made)), dict(_flatten(asked))
    names = list(flat_made) + [name for name in flat_asked if name not in flat_made]
    return [
        f"{name} is {_show(flat_made.get(name))}, not {_show(flat_asked.get(name))}"
        for name in names
        if flat_made.get(name) != flat_asked.get(name)
    ]


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _show(value: Any) -> str:
    is_digest = isinstance(value, str) and len(value) == 64
    return f"{value[:12]}…" if is_digest else repr(value)
