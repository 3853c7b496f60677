"""The file of a manifest: Parquet that carries a checksum of its content."""

import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from featurepipe.errors import ManifestError
from featurepipe.files import replacing
from featurepipe.manifest.cells import Columns
from featurepipe.manifest.labelling import Labelling
from featurepipe.manifest.tables import read_parquet
from featurepipe.words import invalid_field, one_line

_METADATA_KEY = b"featurepipe.manifest"
_STORED_COLUMN = "table."
_FORMAT = 2


class _About(BaseModel):
    """What a manifest's file says beside its images and columns."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: int
    checksum: int
    root: str
    source: str
    labels_source: str | None
    labelling: Labelling
    findings: tuple[str, ...]
    all_images: bool


@dataclass(frozen=True, eq=False)
class ManifestFile:
    """What the file of a manifest holds.

    Attributes
    ----------
    ids : list of str
        Image ids, sorted, each once.
    columns, root, source, labels_source, labelling, findings, all_images
        See `featurepipe.manifest.Manifest`.
    """

    ids: list[str]
    columns: Columns
    root: str
    source: str
    labels_source: str | None
    labelling: Labelling
    findings: tuple[str, ...]
    all_images: bool

    @property
    def checksum(self) -> int:
        """CRC-32 of all that it holds."""
        # Parquet's own checksums do not cover page headers.
        content = [self._about(), self.ids, self.columns]
        return zlib.crc32(json.dumps(content, sort_keys=True).encode())

    def _about(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "root": self.root,
            "source": self.source,
            "labels_source": self.labels_source,
            "labelling": asdict(self.labelling),
            "findings": self.findings,
            "all_images": self.all_images,
        }

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        names = ["id", *(f"{_STORED_COLUMN}{name}" for name in self.columns)]
        arrays = [pa.array(self.ids, pa.string())]
        arrays += [pa.array(cells, pa.list_(pa.string())) for cells in self.columns.values()]
        about = self._about() | {"checksum": self.checksum}
        metadata = {_METADATA_KEY: json.dumps(about, sort_keys=True)}
        with replacing(path) as beside:
            pq.write_table(pa.table(arrays, names=names, metadata=metadata), beside)


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file of a manifest raises into an error that names it.

    Raises
    ------
    ManifestError
        If anything is raised within.
    """
    try:
        yield
    # The type of the error depends on what is wrong with the file.
    except Exception as error:
        reason = invalid_field(error) if isinstance(error, ValidationError) else one_line(error)
        raise ManifestError(
            f"Cannot read the manifest {path} ({reason}). Remove it, and create it again with "
            "`featurepipe extract SOURCE`."
        ) from error


def read_manifest_file(path: Path) -> ManifestFile:
    """Read and check the file of a manifest, within `damage_named`.

    Parameters
    ----------
    path : Path

    Raises
    ------
    Exception
        If the file is missing, damaged or something else; its type depends on what is wrong.
    """
    with path.open("rb") as file:
        stored = read_parquet(file)
    about = json.loads((stored.schema.metadata or {}).get(_METADATA_KEY, b"{}"))
    if not isinstance(about, dict):
        raise TypeError(f"its description is a {type(about).__name__}")
    if about.get("format") != _FORMAT:
        raise ValueError(f"its format is {about.get('format')}, not {_FORMAT}")
    return _checked(stored, _About.model_validate_json(json.dumps(about)))


def _checked(stored: pa.Table, about: _About) -> ManifestFile:
    names, kinds = stored.column_names, stored.schema.types
    if names[:1] != ["id"] or kinds != [pa.string(), *[pa.list_(pa.string())] * (len(kinds) - 1)]:
        raise ValueError("its columns are others than those of a manifest")
    if stored["id"].null_count:
        raise ValueError("an id is missing")
    ids: list[str] = stored["id"].to_pylist()
    if any(later <= earlier for earlier, later in pairwise(ids)):
        raise ValueError("its images are not in order, or one is there twice")
    columns: Columns = {
        name.removeprefix(_STORED_COLUMN): [
            None if cell is None else tuple(cell) for cell in stored[name].to_pylist()
        ]
        for name in stored.column_names[1:]
    }
    kept = ManifestFile(
        ids=ids,
        columns=columns,
        root=about.root,
        source=about.source,
        labels_source=about.labels_source,
        labelling=about.labelling,
        findings=about.findings,
        all_images=about.all_images,
    )
    if about.checksum != kept.checksum:
        raise ValueError("its checksum does not match")
    return kept
