"""Templates -> one HTML file that needs nothing else."""

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from featurepipe.files import replacing
from featurepipe.words import visible


def render(template: str, **values: Any) -> str:
    """Fill in a template; whatever is not Markup is escaped.

    Parameters
    ----------
    template : str
        Name of a file in `templates`.
    **values : Any

    Returns
    -------
    str
        HTML.
    """
    return _environment().get_template(template).render(values)


def write_page(html: str, path: Path) -> None:
    """Write a page, completely or not at all.

    Parameters
    ----------
    html : str
    path : Path

    Raises
    ------
    DiskFullError
        If the disk is full.
    """
    with replacing(path) as beside:
        beside.write_text(html, encoding="utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("featurepipe.reports.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = visible
    # Attributes stay in their order.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    environment.globals["file"] = _file
    return environment


def _file(name: str) -> Markup:
    """The text of a style sheet or script of this package, to be put into a page as it is."""
    loader = _environment().loader
    assert loader is not None
    return Markup(loader.get_source(_environment(), name)[0])
