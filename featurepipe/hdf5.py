"""HDF5 files that lie wholly in themselves.

HDF5 follows what a file names: links and raw data in any other file that this process may
read or write, filters from shared libraries, and values of variable length, for which a
damaged reference crashes libhdf5. Files of featurepipe and Keras need none of these.
"""

from collections.abc import Iterator
from typing import Any

import h5py
from h5py import h5a, h5d, h5g, h5l, h5o, h5t, h5z

_FILTERS = (h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32)
_NUMBERS = (h5t.INTEGER, h5t.FLOAT)


def foreign_part(group: h5py.Group, *, plain: bool = False) -> str:
    """What of a file lies elsewhere, or needs more than libhdf5 itself; nothing of it is read.

    Parameters
    ----------
    group : h5py.Group
        A file or a group in it, of any origin.
    plain : bool
        Whether compression and text of variable length are foreign as well.

    Returns
    -------
    str
        A clause, such as ``'features' lies in another file``; empty if there is no such part.
    """
    for name, item in _items(group.id):
        what = _foreign_item(item, plain=plain)
        if what:
            return f"{name!r} {what}"
    return ""


def _items(group: h5g.GroupID) -> Iterator[tuple[str, Any]]:
    """Every object below a group, open; None in the place of what is linked from elsewhere."""
    unvisited, visited = [("/", group)], set()
    while unvisited:
        path, item = unvisited.pop()
        yield path, item
        # Groups may hold one another.
        if not isinstance(item, h5g.GroupID) or (address := h5o.get_info(item).addr) in visited:
            continue
        visited.add(address)
        for raw_name in item:
            name = f"{path.rstrip('/')}/{raw_name.decode(errors='replace')}"
            if item.links.get_info(raw_name).type != h5l.TYPE_HARD:
                yield name, None
                return
            unvisited.append((name, h5o.open(item, raw_name)))


def _foreign_item(item: Any, *, plain: bool) -> str:
    if item is None:
        return "is a link"
    if not isinstance(item, h5g.GroupID | h5d.DatasetID):
        return "is neither a group nor a dataset"
    if isinstance(item, h5d.DatasetID):
        how = item.get_create_plist()
        if how.get_layout() == h5d.VIRTUAL or how.get_external_count():
            return "lies in another file"
        filters = [how.get_filter(number)[0] for number in range(how.get_nfilters())]
        if (plain and filters) or not set(filters) <= set(_FILTERS):
            return "has a filter"
        if not _is_known_type(item.get_type(), plain=plain):
            return "holds neither numbers nor text"
    for number in range(h5a.get_num_attrs(item)):
        if not _is_known_type(h5a.open(item, index=number).get_type(), plain=plain):
            return "has an attribute that is neither a number nor text"
    return ""


def _is_known_type(kind: h5t.TypeID, *, plain: bool) -> bool:
    if isinstance(kind, h5t.TypeStringID):
        return not (plain and kind.is_variable_str())
    if isinstance(kind, h5t.TypeEnumID):
        # Booleans of NumPy.
        return not plain
    return kind.get_class() in _NUMBERS
