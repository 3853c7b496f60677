"""Walks through folders in the order of the ids."""

from collections.abc import Callable, Iterable, Iterator


def walk(keys_in: Callable[[str], Iterable[str]]) -> Iterator[str]:
    """Files below a root, with one folder listed after the other.

    In memory are the keys in the folders on the way to a file.

    Parameters
    ----------
    keys_in : callable
        Gives the keys in a folder, by its own; the root's is empty. Keys are paths relative to the
        root. That of a folder ends with a slash, as it begins the ids of its files, so sorted keys
        give sorted ids.

    Yields
    ------
    str
        Keys of files, sorted.
    """
    opened = [sorted(keys_in(""), reverse=True)]
    while opened:
        if not opened[-1]:
            opened.pop()
        elif (key := opened[-1].pop()).endswith("/"):
            opened.append(sorted(keys_in(key), reverse=True))
        else:
            yield key
