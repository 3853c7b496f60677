"""Phrases shared by findings and errors."""

from collections.abc import Sequence, Sized


def counted(things: Sized, what: str) -> str:
    """How many there are, such as ``"2 images"``.

    Parameters
    ----------
    things : sized
        Things to count.
    what : str
        Name of one of them.
    """
    return f"{len(things)} {what}{'' if len(things) == 1 else 's'}"


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
