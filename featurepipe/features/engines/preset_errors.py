"""Errors of presets; imported by the processes of `conversion_tasks` only."""

from collections.abc import Iterator
from contextlib import contextmanager

from featurepipe.errors import FeaturepipeError, UsageError, WeightsError
from featurepipe.words import one_line

_REASON_LENGTH = 200


def not_installed(source: str, library: str, error: ImportError) -> UsageError:
    """The error where a library cannot be imported.

    Parameters
    ----------
    source : str
        The preset.
    library : str
        Name of the library, which is that of the extra.
    error : ImportError
    """
    return UsageError(
        f"{source} needs {library}, which cannot be imported ({one_line(error)[:_REASON_LENGTH]}). "
        f"Install it: pip install 'featurepipe[{library}]'"
    )


@contextmanager
def fetching(source: str, place: str, advice: str) -> Iterator[None]:
    """Turn whatever a library raises while it fetches or builds a preset into one error.

    Parameters
    ----------
    source : str
        The preset.
    place : str
        Where it is fetched from, such as ``"https://huggingface.co"``.
    advice : str
        What to do if that cannot be reached, sentences.

    Raises
    ------
    WeightsError
        If the place cannot be reached, or gives nothing that can be used.
    """
    try:
        yield
    except FeaturepipeError:
        raise
    # Each library, hub and version has errors of its own.
    except Exception as error:
        reason = one_line(error)[:_REASON_LENGTH]
        if _is_unreachable(error):
            raise WeightsError(
                f"No weights of {source}: {place} could not be reached ({type(error).__name__}). "
                f"{advice}"
            ) from error
        raise WeightsError(
            f"{source} cannot be loaded ({reason}). Check the name, or choose another."
        ) from error


def changed(source: str) -> WeightsError:
    """The error where weights are others than those that were looked at."""
    return WeightsError(
        f"The weights of {source} have changed at their source since they were first used. Clear "
        "the folder presets in featurepipe's cache, and extract the features again."
    )


def _is_unreachable(error: BaseException | None) -> bool:
    """Whether a connection failed, and no place said that there is no such thing."""
    names = set()
    while error is not None:
        names |= {kind.__name__ for kind in type(error).__mro__}
        error = error.__cause__ or error.__context__
    connection = {"ConnectionError", "ConnectError", "TransportError", "Timeout", "TimeoutError",
                  "gaierror", "LocalEntryNotFoundError", "OfflineModeIsEnabled"}  # fmt: skip
    return bool(names & connection)
