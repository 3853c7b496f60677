"""Images and their labels: folders and tables become a Manifest."""

from featurepipe.manifest.labelling import Labelling, Relabelling
from featurepipe.manifest.labels import ALL, Labels
from featurepipe.manifest.listing import GivenImage, find_images, holds_images
from featurepipe.manifest.lost_classes import lost_classes
from featurepipe.manifest.manifest import Manifest
from featurepipe.manifest.manifest_rows import ManifestRows
from featurepipe.manifest.parts import REASON_COLUMN, SPLIT_COLUMN
from featurepipe.manifest.reading import ListedSource, list_source, read_manifest

__all__ = [
    "ALL",
    "REASON_COLUMN",
    "SPLIT_COLUMN",
    "GivenImage",
    "Labelling",
    "Labels",
    "ListedSource",
    "Manifest",
    "ManifestRows",
    "Relabelling",
    "find_images",
    "holds_images",
    "list_source",
    "lost_classes",
    "read_manifest",
]
