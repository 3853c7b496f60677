"""Weights: `imagenet`, `random`, a path or none; which file is loaded, and its name."""

import hashlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from featurepipe.errors import UsageError, WeightsError
from featurepipe.features.backbones import BackboneSpec, bare_name
from featurepipe.files import disk_full_named, require_readable

logger = logging.getLogger(__name__)

MAX_WEIGHTS_BYTES = 20 * 10**9
"""Largest file of weights that is read. The largest of `keras.applications` has 1.4 GB."""

_SUFFIXES = (".weights.h5", ".h5", ".keras")
_WITHOUT_FILE = frozenset({"imagenet", "random"})
# What begins one of several NAME=WEIGHTS.
_PAIR = re.compile(r"[A-Za-z0-9_-]+=")
_CONNECT_TIMEOUT_S = 5
_READ_TIMEOUT_S = 30


@dataclass(frozen=True)
class Weights:
    """The weights of one backbone.

    Attributes
    ----------
    kind : str
        ``"imagenet"``, ``"random"``, ``"file"``, ``"preset"``, or ``"none"`` for a descriptor.
    label : str
        What boards show: ``imagenet``, ``random``, ``none``, or the name of the file or preset.
    backbone : str
        Name of the backbone they are for.
    sha256 : str
        SHA-256 of the file or preset in hexadecimal; empty where there is none.
    seed : int or None
        Seed of random weights; None otherwise.
    path : Path or None
        The file; None where there is none.
    preset : str
        ``timm:NAME`` or ``keras-hub:PRESET``; empty for other kinds.
    """

    kind: Literal["imagenet", "random", "file", "preset", "none"]
    label: str
    backbone: str
    sha256: str = ""
    seed: int | None = None
    path: Path | None = None
    preset: str = ""

    def identity(self) -> dict[str, Any]:
        """What distinguishes these weights from all others; part of a store's key.

        A file is identified by its content, wherever it lies. Random weights are
        drawn by Keras, and another version may draw others.
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
        """What finds them again: an absolute path, a preset, or the `kind`."""
        if self.kind == "preset":
            return self.preset
        return str(self.path.absolute()) if self.kind == "file" and self.path else self.kind

    @property
    def file_label(self) -> str:
        """The label in a file's name: ``imagenet``, ``random0``, ``none``, ``my_weights``."""
        if self.kind == "random":
            return f"random{self.seed}"
        return re.sub(r"[^A-Za-z0-9._]+", "_", _without_suffix(self.label))


def resolve_weights(spec_text: str, backbone: BackboneSpec, seed: int = 0) -> Weights:
    """Find the weights that a text names; ImageNet weights are downloaded if needed.

    ImageNet weights are kept in Keras' own cache, under the name and with the
    hash that Keras has for them.

    Parameters
    ----------
    spec_text : str
        ``"imagenet"``, ``"random"``, or the path of a `.h5`, `.weights.h5` or
        `.keras` file. Ignored for a descriptor, which has no weights.
    backbone : BackboneSpec
    seed : int
        Seed of random weights.

    Raises
    ------
    WeightsError
        If the file is missing or of another kind, or the ImageNet weights cannot
        be downloaded.
    """
    if backbone.kind == "descriptor":
        return Weights("none", "none", backbone.name)
    if spec_text == "random":
        return Weights("random", "random", backbone.name, seed=seed)
    if spec_text == "imagenet":
        path = _fetch_imagenet(backbone)
        return Weights("imagenet", "imagenet", backbone.name, sha256_of(path), path=path)
    path = require_weights_file(spec_text)
    # Another process, in another folder, may read it.
    return Weights("file", path.name, backbone.name, sha256_of(path), path=path.absolute())


def weights_by_backbone(
    weights: str | Mapping[str, str], backbones: Iterable[BackboneSpec]
) -> dict[str, str]:
    """Which weights each of several backbones gets; nothing is read or downloaded.

    Parameters
    ----------
    weights : str or mapping of str to str
        ``"imagenet"`` or ``"random"``, for all backbones that have weights; a path, if only one
        has; or for each backbone its own, as a mapping or as ``"NAME=WEIGHTS,NAME=WEIGHTS"``.
        Backbones that a mapping does not name get ``"imagenet"``.
    backbones : iterable of BackboneSpec

    Returns
    -------
    dict of str to str
        By the backbones' names, what `resolve_weights` takes.

    Raises
    ------
    UsageError
        If one file is given for several backbones, or a backbone is named that is not among them
        or has no weights.
    WeightsError
        If a file is missing or of another kind.

    Examples
    --------
    >>> from featurepipe.features.backbones import find_backbone
    >>> specs = [find_backbone("mobilenet_v2"), find_backbone("hsv_histogram")]
    >>> weights_by_backbone("random", specs)
    {'mobilenet_v2': 'random', 'hsv_histogram': 'none'}
    """
    by_name = {spec.name: spec for spec in backbones}
    networks = [name for name, spec in by_name.items() if spec.kind == "network"]
    if isinstance(weights, str) and not _names_backbones(weights):
        if weights not in _WITHOUT_FILE and len(networks) > 1:
            require_weights_file(weights)
            example = ",".join(f"{name}=PATH" for name in networks)
            raise UsageError(
                f"--weights {weights} is one file for {len(networks)} backbones. Name the "
                f"backbone of each file: --weights {example}"
            )
        chosen = dict.fromkeys(networks, weights)
    else:
        pairs = weights.items() if isinstance(weights, Mapping) else _split_pairs(weights)
        chosen = dict.fromkeys(networks, "imagenet")
        for name, text in pairs:
            chosen[_named_network(name, networks)] = text
    for text in set(chosen.values()) - _WITHOUT_FILE:
        require_weights_file(text)
    return {name: chosen.get(name, "none") for name in by_name}


def _names_backbones(text: str) -> bool:
    # A path may hold the same characters.
    return _PAIR.match(text) is not None and not Path(text).exists()


def _split_pairs(text: str) -> list[tuple[str, str]]:
    pairs = [pair.partition("=") for pair in re.split(rf",(?={_PAIR.pattern})", text)]
    return [(name, value) for name, _, value in pairs]


def _named_network(name: str, networks: Sequence[str]) -> str:
    for network in networks:
        if bare_name(network) == bare_name(name):
            return network
    expected = f"expected one of {', '.join(networks)}" if networks else "none of them has weights"
    raise UsageError(
        f"--weights names {name!r}, which is no backbone of this command that has weights: "
        f"{expected}."
    )


def require_weights_file(text: str) -> Path:
    """The path of a weights file, if it exists and has the name of one.

    Raises
    ------
    WeightsError
        If it does not.
    """
    path = Path(text)
    if not path.is_file():
        raise WeightsError(
            f"There are no weights at {text!r}. Expected 'imagenet', 'random', or the path of a "
            f"{', '.join(_SUFFIXES)} file."
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


def sha256_of(path: Path) -> str:
    """SHA-256 of a file of weights, in hexadecimal.

    Parameters
    ----------
    path : Path

    Raises
    ------
    NotReadableError
        If it is larger than `MAX_WEIGHTS_BYTES`, or no regular file.
    WeightsError
        If it cannot be read.
    """
    require_readable(path, MAX_WEIGHTS_BYTES)
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
            retrieve(backbone.weights_url, _pooch_hash(backbone.weights_hash), path)
    except RequestException as error:
        raise WeightsError(_advise(backbone, path, "could not be reached", error)) from error
    except ValueError as error:
        raise WeightsError(_advise(backbone, path, "gave another file", error)) from error
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be written ({error.strerror or error}). Set KERAS_HOME to a folder of "
            "yours, or use --weights PATH."
        ) from error
    return path


def retrieve(url: str, known_hash: str | None, path: Path) -> None:
    """Download a file, unless it is there already.

    Parameters
    ----------
    url : str
    known_hash : str or None
        ``"ALGORITHM:DIGEST"`` that the file must have; None where it is not known.
    path : Path

    Raises
    ------
    requests.RequestException
        If it cannot be downloaded.
    ValueError
        If it has another digest.
    OSError
        If it cannot be written.
    """
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
        f"({type(error).__name__}). Put the file at {path} by hand, or use --weights PATH or "
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
