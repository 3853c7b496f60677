"""Sources of images: a folder, tar files or a URL, behind one small protocol."""

from featurepipe.sources.local import LocalFolder
from featurepipe.sources.opening import (
    is_tar_pattern,
    open_archive,
    open_file,
    open_part,
    open_remote,
    open_source,
    require_there,
)
from featurepipe.sources.places import (
    absolute_place,
    is_archive,
    is_url,
    is_web,
    name_of,
    parent_place,
)
from featurepipe.sources.protocol import MAX_IMAGE_BYTES, UNKNOWN, ImageSource
from featurepipe.sources.tar import TarArchive
from featurepipe.sources.walking import walk

__all__ = [
    "MAX_IMAGE_BYTES",
    "UNKNOWN",
    "ImageSource",
    "LocalFolder",
    "TarArchive",
    "absolute_place",
    "is_archive",
    "is_tar_pattern",
    "is_url",
    "is_web",
    "name_of",
    "open_archive",
    "open_file",
    "open_part",
    "open_remote",
    "open_source",
    "parent_place",
    "require_there",
    "walk",
]
