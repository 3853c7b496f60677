"""Names within sentences of a page: set apart, so that no name changes how the rest reads."""

import re

from markupsafe import Markup, escape

from featurepipe.words import visible

# `visible` leaves no control character in a name.
_START, _END = "\x02", "\x03"


def named(name: str) -> str:
    """A name between marks, which `sentence` turns into an element.

    Parameters
    ----------
    name : str
    """
    return f"{_START}{visible(name)}{_END}"


def sentence(text: str) -> Markup:
    """A sentence whose names are `named`, as HTML.

    Parameters
    ----------
    text : str
    """
    # A number and its unit stay on one line.
    text = re.sub(r"(?<=\d) (?=%|ms |s |min |h )", "\N{NO-BREAK SPACE}", text)
    start, end = Markup('<bdi class="name">'), Markup("</bdi>")
    return Markup(escape(text).replace(_START, start).replace(_END, end))
