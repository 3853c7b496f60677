"""Weights: `imagenet`, `random`, a path or none; what is loaded and how it is named."""

import hashlib
import logging
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from featurepipe.errors import WeightsError
from featurepipe.features.backbones import BackboneSpec
from featurepipe.files import disk_full_named

logger = logging.getLogger(__name__)

_SUFFIXES = (".weights.h5", ".h5", ".keras")
_CONNECT_TIMEOUT_S = 5
_READ_TIMEOUT_S = 30


@dataclass(frozen=True)
class Weights:
    """The weights of one backbone.

    Attributes
    ----------
    kind : str
        ``"imagenet"``, ``"random"``, ``"file"``, or ``"none"`` of a descriptor.
    label : str
        What boards show: ``imagenet``, ``random``, ``none`` or the file's name.
    backbone : str
        Name of the backbone they are for.
    sha256 : str
        SHA-256 of the file in hexadecimal; empty where there is none.
    seed : int or None
        Of random weights; None otherwise.
    path : Path or None
        The file; None where there is none.
    """

    kind: Literal["imagenet", "random", "file", "none"]
    label: str
    backbone: str
    sha256: str = ""
    seed: int | None = None
    path: Path | None = None

    def identity(self) -> dict[str, Any]:
        """What makes these weights these and no others; part of a store's key.

        A file is what it holds, wherever it lies. Random weights are drawn by
        Keras, and another version may draw others.
        """
        if self.kind == "random":
            return {
                "kind": self.kind,
                "backbone": self.backbone,
                "seed": self.seed,
                "keras": version("keras"),
            }
        if self.kind == "none":
            return {"kind": self.kind}
        return {"kind": self.kind, "sha256": self.sha256}

    @property
    def source(self) -> str:
        """What to resolve to find them again: an absolute path, or the `kind`."""
        return str(self.path.absolute()) if self.kind == "file" and self.path else self.kind

    @property
    def file_label(self) -> str:
        """The label in a file's name: ``imagenet``, ``random0``, ``none``, ``my_weights``."""
        if self.kind == "random":
            return f"random{self.seed}"
        return re.sub(r"[^A-Za-z0-9._]+", "_", _without_suffix(self.label))


def resolve_weights(spec_text: str, backbone: BackboneSpec, seed: int = 0) -> Weights:
    """Find the weights that a text names; ImageNet weights are downloaded once.

    ImageNet weights are kept in Keras' own cache, under the name and with the
    hash that Keras has for them.

    Parameters
    ----------
    spec_text : str
        ``"imagenet"``, ``"random"``, or the path of a `.h5`, `.weights.h5` or
        `.keras` file. Of a descriptor: ``"none"``, which the default
        ``"imagenet"`` stands for too.
    backbone : BackboneSpec
    seed : int
        Of random weights.

    Raises
    ------
    WeightsError
        If the file is missing or of another kind, the ImageNet weights cannot
        be downloaded, or weights are named for a descriptor.
    """
    if backbone.kind == "descriptor":
        _require_none(spec_text, backbone)
        return Weights("none", "none", backbone.name)
    if spec_text == "random":
        return Weights("random", "random", backbone.name, seed=seed)
    if spec_text == "imagenet":
        path = _fetch_imagenet(backbone)
        return Weights("imagenet", "imagenet", backbone.name, _sha256(path), path=path)
    path = _require_weights_file(Path(spec_text))
    return Weights("file", path.name, backbone.name, _sha256(path), path=path)


def _require_none(spec_text: str, backbone: BackboneSpec) -> None:
    if spec_text not in ("none", "imagenet"):
        raise WeightsError(
            f"{backbone.name} has no weights, and cannot be given {spec_text!r}. Leave --weights "
            "away, and name backbones that have weights in a command of their own."
        )


def _require_weights_file(path: Path) -> Path:
    if not path.is_file():
        raise WeightsError(
            f"There are no weights at {str(path)!r}. Expected 'imagenet', 'random', or the path "
            f"of a {', '.join(_SUFFIXES)} file."
        )
    if not path.name.endswith(_SUFFIXES):
        raise WeightsError(
            f"{path.name} cannot be weights: expected a name that ends in {', '.join(_SUFFIXES)}."
        )
    return path


def _without_suffix(name: str) -> str:
    for suffix in _SUFFIXES:
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error


def _fetch_imagenet(backbone: BackboneSpec) -> Path:
    # Imported here since it is slow, and comes with pooch only.
    from requests import RequestException

    path = _keras_cache() / backbone.weights_file
    if not path.exists():
        logger.info("Downloading %s …", backbone.weights_url)
    try:
        with disk_full_named(path):
            _retrieve(backbone.weights_url, _pooch_hash(backbone.weights_hash), path)
    except RequestException as error:
        raise WeightsError(_advise(backbone, path, "could not be reached", error)) from error
    except ValueError as error:
        raise WeightsError(_advise(backbone, path, "gave another file", error)) from error
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be written ({error.strerror or error}). Set KERAS_HOME to a folder of "
            "yours, or give --weights PATH."
        ) from error
    return path


def _retrieve(url: str, known_hash: str | None, path: Path) -> None:
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    downloader = pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(), timeout=(_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S)
    )
    pooch.retrieve(url, known_hash, fname=path.name, path=path.parent, downloader=downloader)


def _pooch_hash(digest: str | None) -> str | None:
    return digest and f"{'md5' if len(digest) == 32 else 'sha256'}:{digest}"


def _advise(backbone: BackboneSpec, path: Path, failure: str, error: Exception) -> str:
    return (
        f"No ImageNet weights of {backbone.name}: {backbone.weights_url} {failure} "
        f"({type(error).__name__}). Put the file at {path} by hand, or give --weights PATH or "
        "--weights random."
    )


def _keras_cache() -> Path:
    """The folder where Keras keeps weights, found by Keras' own rules."""
    folder = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        logger.debug("%s cannot be made.", folder)
    if not os.access(folder, os.W_OK):
        temporary = Path("/tmp")
        folder = (temporary if temporary.is_dir() else Path(tempfile.gettempdir())) / ".keras"
    return folder / "models"
