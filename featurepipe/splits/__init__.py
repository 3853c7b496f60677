"""Named, saved train/test splits, with held-out combinations as unseen images.

Images of one group always stay on the same side: images with identical bytes, with
the same value in the group column and, on request, near-duplicates, directly or
through other images.
"""

from featurepipe.splits.divisible import divisible_ids
from featurepipe.splits.folds import combination_folds, inner_folds
from featurepipe.splits.holding_out import each_held_out
from featurepipe.splits.making import make_splits
from featurepipe.splits.split import PARTS, Split
from featurepipe.splits.split_settings import SplitSettings

__all__ = [
    "PARTS",
    "Split",
    "SplitSettings",
    "combination_folds",
    "divisible_ids",
    "each_held_out",
    "inner_folds",
    "make_splits",
]
