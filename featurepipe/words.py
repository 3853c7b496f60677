"""Phrases that messages share."""

from collections.abc import Sequence, Sized


def counted(things: int | Sized, what: str) -> str:
    """How many there are, such as ``"2 images"``.

    Parameters
    ----------
    things : int or sized
        Their number, or the things themselves.
    what : str
        Name of one of them.
    """
    number = len(things) if isinstance(things, Sized) else things
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def examples(names: Sequence[str]) -> str:
    """The first few names, such as ``"a.jpg, b.jpg, c.jpg, …"``.

    Parameters
    ----------
    names : sequence of str
    """
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def one_line(error: BaseException) -> str:
    """The text of an error on one line, or its type if it has no text.

    Parameters
    ----------
    error : BaseException
    """
    return " ".join(str(error).split()) or type(error).__name__
