"""The network of a file, from what its sidecars, a person or a store's key say."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from featurepipe.errors import StoreMismatchError, UsageError
from featurepipe.features.backbones import BackboneSpec
from featurepipe.features.framing import Framing
from featurepipe.features.headless import FileGraph, HeadlessNetwork
from featurepipe.features.model_files.model_file import ModelFile
from featurepipe.features.model_files.normalisation import NOTHING, Normalisation
from featurepipe.features.model_files.preprocessing import Preprocessing, given_preprocessing
from featurepipe.features.model_files.sidecars import read_sidecars
from featurepipe.features.store import StoreKey
from featurepipe.features.weights import Weights

logger = logging.getLogger(__name__)

_THREE_WAYS = (
    "Put its preprocessor_config.json (Hugging Face) or config.json (timm) beside it; or give "
    "--size, --mean and --std; or, if it normalises pixels itself, --preprocess none."
)


@dataclass(frozen=True)
class FileOptions:
    """What the caller says about a network in a file; see `featurepipe.extract`.

    Attributes
    ----------
    preprocess : str or mapping of str to object, optional
    output : str, optional
    prefix_tokens : int, optional
    """

    preprocess: str | Mapping[str, Any] | None = None
    output: str | None = None
    prefix_tokens: int | None = None


def network_of_file(
    path: Path, options: FileOptions, *, pooling: str, size_px: int | None
) -> HeadlessNetwork:
    """The network of a file, with the preprocessing that is said for it.

    What the caller says comes before what sidecars say. Preprocessing is never guessed.

    Parameters
    ----------
    path : Path
    options : FileOptions
    pooling, size_px
        See `featurepipe.extract`.

    Raises
    ------
    ModelFileError
        If the file is no network that takes square images.
    UsageError
        If nothing says what the preprocessing is, or what is said is impossible.
    """
    said = given_preprocessing(options.preprocess, size_px, options.prefix_tokens)
    file = ModelFile.open(path)
    beside = read_sidecars(path)
    if beside is not None:
        said = replace(said.over(beside), source=beside.source)
    if not said.says_values:
        raise UsageError(f"Nothing says how {path.name} preprocesses images. {_THREE_WAYS}")
    if said.size_px is None:
        said = replace(said, size_px=file.fixed_px)
    graph = FileGraph(said.framing(), said.normalisation(), options.output, said.prefix_tokens)
    if file.fixed_px not in (None, graph.framing.height):
        raise UsageError(
            f"{path.name} takes images of {file.fixed_px} px, but {said.source} says "
            f"{graph.framing.height} px. Correct the size."
        )
    if file.takes_whole_numbers and replace(graph.normalisation, channels="rgb").text != NOTHING:
        raise UsageError(
            f"{path.name} takes pixels as whole numbers, but {said.source} normalises them to "
            "fractions. Use --preprocess none."
        )
    _tell(file, said, graph)
    return _network(file, graph, pooling)


def repeat_network_of_file(key: StoreKey, path: Path) -> HeadlessNetwork:
    """The network of a file that a store or run was made with.

    Parameters
    ----------
    key : StoreKey
    path : Path
        Where the file is now.

    Raises
    ------
    ModelFileError
        If the file is no network that takes square images.
    StoreMismatchError
        If the key says no preprocessing.
    """
    file = ModelFile.open(path)
    try:
        normalisation = Normalisation.from_text(key.preprocessing)
    except ValueError as error:
        raise StoreMismatchError(
            f"The features were made with the preprocessing {key.preprocessing!r}, which this "
            "version does not know. Extract them again."
        ) from error
    framing = Framing.by_method(key.resize, (key.size_px, key.size_px))
    graph = FileGraph(framing, normalisation, key.output, key.prefix_tokens)
    network = _network(file, graph, key.pooling)
    # A renamed file is the same network.
    return replace(network, backbone=replace(network.backbone, name=key.backbone))


def _network(file: ModelFile, graph: FileGraph, pooling: str) -> HeadlessNetwork:
    size_px = graph.framing.height
    spec = BackboneSpec(
        name=file.name,
        constructor="",
        module="",
        size_px=size_px,
        min_size_px=1,
        n_features=None,
        preprocessing=graph.normalisation.text,
        licence="see source",
        weights_url="",
        weights_file="",
        weights_hash=None,
        blocks="",
        kind="file",
    )
    weights = Weights("file", file.path.name, file.name, file.sha256, path=file.path)
    return HeadlessNetwork(spec, weights, size_px, pooling, graph)


def _tell(file: ModelFile, said: Preprocessing, graph: FileGraph) -> None:
    framing = graph.framing
    resized = f"resized to {framing.width} x {framing.height} px"
    if framing.shorter_px is not None:
        resized = (
            f"shorter side resized to {framing.shorter_px} px, the centre of {framing.width} x "
            f"{framing.height} px cropped"
        )
    logger.info(
        "Preprocessing of %s, by %s: %s (%s); pixels: %s.",
        file.path.name,
        said.source,
        resized,
        framing.interpolation,
        graph.normalisation.text,
    )
