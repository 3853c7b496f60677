"""The network of a file or preset, from what sidecars, a library, a person or a key say."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from featurepipe.errors import StoreMismatchError, UsageError
from featurepipe.features.backbones import BackboneSpec
from featurepipe.features.framing import Framing
from featurepipe.features.headless import FileGraph, HeadlessNetwork
from featurepipe.features.model_files.model_file import ModelFile, is_model_file
from featurepipe.features.model_files.model_preset import ModelPreset, is_preset
from featurepipe.features.model_files.normalisation import NOTHING, Normalisation
from featurepipe.features.model_files.preprocessing import Preprocessing, given_preprocessing
from featurepipe.features.store import StoreKey

logger = logging.getLogger(__name__)

_THREE_WAYS = (
    "Put its preprocessor_config.json (Hugging Face) or config.json (timm) beside it; or give "
    "--size, --mean and --std; or, if it normalises pixels itself, --preprocess none."
)


@dataclass(frozen=True)
class FileOptions:
    """What the caller says about a network in a file or preset; see `featurepipe.extract`.

    Attributes
    ----------
    preprocess : str or mapping of str to object, optional
    output : str, optional
    prefix_tokens : int, optional
    """

    preprocess: str | Mapping[str, Any] | None = None
    output: str | None = None
    prefix_tokens: int | None = None


def is_file_or_preset(name: str) -> bool:
    """Whether the name of a backbone is the path of a network, or that of a preset."""
    return is_preset(name) or is_model_file(name)


def network_of_file(
    name: str, options: FileOptions, *, pooling: str, size_px: int | None
) -> HeadlessNetwork:
    """The network of a file or preset, with the preprocessing that is said for it.

    What the caller says comes before what sidecars or the library say. Preprocessing is never
    guessed.

    Parameters
    ----------
    name : str
        Path of a file, ``timm:NAME`` or ``keras-hub:PRESET``.
    options : FileOptions
    pooling, size_px
        See `featurepipe.extract`.

    Raises
    ------
    ModelFileError
        If the file is no network that takes square images.
    UsageError
        If nothing says what the preprocessing is, or what is said is impossible; or there is no
        such preset.
    WeightsError
        If the weights of a preset cannot be fetched.
    """
    said = given_preprocessing(options.preprocess, size_px, options.prefix_tokens)
    if is_preset(name) and options.output is not None:
        raise UsageError("--output applies to networks in files. Omit it; --pooling may do.")
    file = _open(name)
    beside = file.said_beside()
    if beside is not None:
        said = replace(said.over(beside), source=beside.source)
    if not said.says_values:
        raise UsageError(f"Nothing says how {file.title} preprocesses images. {_THREE_WAYS}")
    if said.size_px is None:
        said = replace(said, size_px=file.fixed_px)
    graph = FileGraph(said.framing(), said.normalisation(), options.output, said.prefix_tokens)
    if file.fixed_px not in (None, graph.framing.height):
        raise UsageError(
            f"{file.title} takes images of {file.fixed_px} px, but {said.source} says "
            f"{graph.framing.height} px. Correct the size."
        )
    if file.takes_whole_numbers and replace(graph.normalisation, channels="rgb").text != NOTHING:
        raise UsageError(
            f"{file.title} takes pixels as whole numbers, but {said.source} normalises them to "
            "fractions. Use --preprocess none."
        )
    _tell(file, said, graph)
    return _network(file, graph, pooling)


def repeat_network_of_file(key: StoreKey, name: str) -> HeadlessNetwork:
    """The network of a file or preset that a store or run was made with.

    Parameters
    ----------
    key : StoreKey
    name : str
        Where the file is now, or the preset.

    Raises
    ------
    ModelFileError
        If the file is no network that takes square images.
    UsageError, WeightsError
        If there is no such preset, or its weights cannot be fetched.
    StoreMismatchError
        If the key says no preprocessing.
    """
    file = _open(name)
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


def _open(name: str) -> ModelFile | ModelPreset:
    return ModelPreset.open(name) if is_preset(name) else ModelFile.open(Path(name))


def _network(file: ModelFile | ModelPreset, graph: FileGraph, pooling: str) -> HeadlessNetwork:
    size_px = graph.framing.height
    spec = BackboneSpec(
        name=file.name,
        constructor="",
        module="",
        size_px=size_px,
        min_size_px=1,
        n_features=None,
        preprocessing=graph.normalisation.text,
        licence=file.licence,
        weights_url="",
        weights_file="",
        weights_hash=None,
        blocks="",
        kind="file",
    )
    return HeadlessNetwork(spec, file.weights, size_px, pooling, graph)


def _tell(file: ModelFile | ModelPreset, said: Preprocessing, graph: FileGraph) -> None:
    framing = graph.framing
    resized = f"resized to {framing.width} x {framing.height} px"
    if framing.shorter_px is not None:
        resized = (
            f"shorter side resized to {framing.shorter_px} px, the centre of {framing.width} x "
            f"{framing.height} px cropped"
        )
    logger.info(
        "Preprocessing of %s, by %s: %s (%s); pixels: %s.",
        file.title,
        said.source,
        resized,
        framing.interpolation,
        graph.normalisation.text,
    )
    if isinstance(file, ModelPreset):
        logger.info("Licence of the weights of %s: %s.", file.title, file.licence)
