"""Named, saved divisions of the images into training, test and unseen rows.

However a split is made, rows of one group never part: images of identical bytes,
those that share a value of the group column and, if wanted, near-duplicates,
directly or through others.
"""

from featurepipe.splits.divisible import divisible_ids
from featurepipe.splits.folds import combination_folds, inner_folds, pool_rare
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
    "pool_rare",
]
