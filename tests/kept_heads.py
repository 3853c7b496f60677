"""Heads, and parts of them, as the file of a run keeps them."""

from featurepipe.runs.heads_file import TRUSTED_TYPES, heads_content


def keep(value):
    """What is read of a value that was saved, where no type but those of featurepipe is trusted."""
    content = heads_content(value)
    # Only now: skops by itself imports all of scikit-learn, and torch along with it.
    import skops.io

    return skops.io.loads(content, trusted=TRUSTED_TYPES)
