"""Words: phrases that messages share, and names that people may see."""

import json
from collections.abc import Iterable, Sequence, Sized
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


def counted(things: int | Sized, what: str, several: str = "") -> str:
    """How many there are, such as ``"2 images"``.

    Parameters
    ----------
    things : int or sized
        Their number, or the things themselves.
    what : str
        Name of one of them.
    several : str, optional
        Name of several, if it is not the other with an ``s``.
    """
    number = len(things) if isinstance(things, Sized) else things
    return f"{number:,} {what if number == 1 else several or f'{what}s'}"


def examples(names: Sequence[str]) -> str:
    """The first few names, such as ``"a.jpg, b.jpg, c.jpg, …"``.

    Parameters
    ----------
    names : sequence of str
    """
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def listed(names: Iterable[str]) -> str:
    """All names, or the first 20 of many, such as ``"a, b and 5 more"``.

    Parameters
    ----------
    names : iterable of str
    """
    every = list(names)
    more = f" and {len(every) - 20:,} more" if len(every) > 20 else ""
    return ", ".join(every[:20]) + more


def one_line(error: BaseException) -> str:
    """The text of an error on one line, or its type if it has no text.

    Parameters
    ----------
    error : BaseException
    """
    return " ".join(str(error).split()) or type(error).__name__


def invalid_field(error: "ValidationError") -> str:
    """Which field is the first that is wrong, and why.

    Parameters
    ----------
    error : pydantic.ValidationError
    """
    first = error.errors()[0]
    field = ".".join(map(str, first["loc"]))
    return f"{field}: {first['msg']}" if field else first["msg"]


def names_of(names: str | Sequence[str]) -> tuple[str, ...]:
    """One name or several, as a tuple.

    Parameters
    ----------
    names : str or sequence of str

    Examples
    --------
    >>> names_of("color")
    ('color',)
    """
    return (names,) if isinstance(names, str) else tuple(names)


def visible(text: str) -> str:
    r"""Text on one line in which whatever is not printable is escaped, as JSON writes it.

    A file's name may hold anything. Control characters, line ends and marks that turn the
    direction of writing would act on the terminal, and others would not be seen.

    Parameters
    ----------
    text : str

    Examples
    --------
    >>> print(visible("a\x1b[2J.png"))
    a\u001b[2J.png
    """
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else json.dumps(sign)[1:-1] for sign in text)


def is_utf8(name: str) -> bool:
    """Whether the name of a file is UTF-8.

    Parameters
    ----------
    name : str
        As Python gives it: bytes that are not UTF-8 are lone surrogates.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
