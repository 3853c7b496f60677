"""Images and their labels: folders and tables become a Manifest."""

from featurepipe.manifest.labelling import Labelling
from featurepipe.manifest.labels import Labels
from featurepipe.manifest.listing import IMAGE_SUFFIXES, find_images
from featurepipe.manifest.manifest import Manifest
from featurepipe.manifest.parts import REASON_COLUMN, SPLIT_COLUMN
from featurepipe.manifest.reading import read_manifest

__all__ = [
    "IMAGE_SUFFIXES",
    "REASON_COLUMN",
    "SPLIT_COLUMN",
    "Labelling",
    "Labels",
    "Manifest",
    "find_images",
    "read_manifest",
]
