"""Labels from folder names."""

from featurepipe.errors import ManifestError
from featurepipe.manifest.cells import Columns
from featurepipe.sources import is_archive

Folders = tuple[str, ...]

DEFAULT_ATTRIBUTE = "label"
_NAME_SEPARATORS = ("_", "-", " ")


def names_in(folder: str) -> Folders:
    """Names of a folder and of those above it, from the top down.

    Parameters
    ----------
    folder : str
        POSIX path relative to the source. With several archives, it begins with the archive's name,
        which is not a label.
    """
    names = tuple(folder.split("/")) if folder else ()
    return names[1:] if names and is_archive(names[0]) else names


def drop_shared_levels(folders: list[Folders]) -> list[Folders]:
    """Drop the top folder levels that all images share.

    Parameters
    ----------
    folders : list of tuple of str
        Names of the folders that each image lies in, from the top down.
    """
    while len({path[0] for path in folders if path}) == 1:
        folders = without_top(folders)
    return folders


def without_top(folders: list[Folders]) -> list[Folders]:
    """The same without the top level; equal ones are one object.

    Parameters
    ----------
    folders : list of tuple of str
    """
    below = {path: path[1:] for path in set(folders)}
    return [below[path] for path in folders]


def folder_labels(folders: list[Folders], attributes: tuple[str, ...]) -> Columns:
    """Labels of each attribute from folder names.

    Parameters
    ----------
    folders : list of tuple of str
        Names of the class folders that each image lies in, from the top down.
    attributes : tuple of str
        Names of the attributes; empty for one called ``label``.

    Returns
    -------
    dict of str to list of (tuple of str or None)
        Empty if all images lie in one folder and no attributes are named.

    Raises
    ------
    ManifestError
        If the folder names do not match the attributes.
    """
    paths = {path for path in folders if path}
    if not paths and attributes:
        raise ManifestError(
            f"Cannot read the attributes {', '.join(attributes)} from folder names: all images are "
            "in one folder. Put them in class folders, or pass the labels with --labels TABLE."
        )
    if not paths:
        return {}
    if len(attributes) <= 1:
        attributes, cuts = attributes or (DEFAULT_ATTRIBUTE,), {path: path[:1] for path in paths}
    else:
        cuts = _cut(paths, attributes)
    columns: Columns = {}
    for k, attribute in enumerate(attributes):
        cells = {path: (cut[k].strip(),) for path, cut in cuts.items()}
        columns[attribute] = [cells.get(path) for path in folders]
    return columns


def _cut(paths: set[Folders], attributes: tuple[str, ...]) -> dict[Folders, tuple[str, ...]]:
    """One class per attribute, from the folder levels or from the parts of the last name."""
    n_attributes = len(attributes)
    if all(len(path) == n_attributes for path in paths):
        return {path: path for path in paths}
    fitting = []
    for separator in _NAME_SEPARATORS:
        cuts = {path: tuple(path[-1].split(separator)) for path in paths}
        fitting.append(
            {
                path: cut
                for path, cut in cuts.items()
                if len(cut) == n_attributes and all(part.strip() for part in cut)
            }
        )
    best = max(fitting, key=len)
    if len(best) < len(paths):
        misfit = "/".join(min(paths - set(best)))
        raise ManifestError(
            f"Folder {misfit!r} does not match the {n_attributes} attributes "
            f"{', '.join(attributes)}: expected {n_attributes} folder levels, or a name of "
            f"{n_attributes} words separated by '_', '-' or ' '. Change --attributes, or pass the "
            "labels with --labels TABLE."
        )
    return best
