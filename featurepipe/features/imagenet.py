"""The 1,000 classes that ImageNet weights were trained on."""

import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files


def imagenet_classes_among(names: Iterable[str]) -> list[str]:
    """Find names of classes of ImageNet-1k, their synonyms and synsets.

    Whole names are compared, ignoring case, spaces, hyphens and underscores; a plural
    matches its singular.

    Parameters
    ----------
    names : iterable of str

    Returns
    -------
    list of str
        The names found, in their order.

    Examples
    --------
    >>> imagenet_classes_among(["golden_retrievers", "Retriever", "n02099601", "dress"])
    ['golden_retrievers', 'n02099601']
    """
    return [name for name in names if not _singulars(_bare(name)).isdisjoint(_known())]


@cache
def _known() -> frozenset[str]:
    table = files("featurepipe.features").joinpath("imagenet_classes.tsv").read_text("utf-8")
    return frozenset(_bare(name) for name in re.split(r"\t|, |\n", table) if name)


def _bare(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()


def _singulars(name: str) -> set[str]:
    """The name, and the names that it may be the plural of."""
    endings = {"s": "", "es": "", "ies": "y"}
    return {name} | {
        name.removesuffix(plural) + singular
        for plural, singular in endings.items()
        if name.endswith(plural)
    }
