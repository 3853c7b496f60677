"""Loading a weights file into a Keras network, if every layer fits.

Only arrays are read. The configuration in a `.keras` file is ignored, and nothing
in any file is executed. Keras has two layouts:

* by order (`.h5` of `keras.applications` and of whole models): the k-th layer
  of the file that has weights is the k-th of the network;
* by path (`.weights.h5` and `.keras` of Keras 3): Keras names a layer by its
  class and its position among those.

Layers beyond the last of the network, such as a classifier, are ignored.
"""

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from featurepipe.errors import WeightsError
from featurepipe.features.backbones import BACKBONES, bare_name
from featurepipe.hdf5 import foreign_part


@dataclass(frozen=True)
class _Array:
    """An array in a file, or one that a network expects."""

    layer: str
    name: str
    shape: tuple[int, ...]
    value: Any


def load_weights(network: Any, path: Path, backbone: str) -> None:
    """Load the weights of a file, with or without a top, into a headless network.

    Parameters
    ----------
    network : keras.Model
        Headless and built.
    path : Path
        A `.h5`, `.weights.h5` or `.keras` file; float16 is cast to float32.
    backbone : str
        Name of the backbone, for errors.

    Raises
    ------
    WeightsError
        If the file is damaged or holds no weights, or one of its layers does
        not fit.
    """
    with _readable(path), open_weights(path) as file:
        by_order = file.get("model_weights", file)
        if "layer_names" in by_order.attrs or "layer_names0" in by_order.attrs:
            _load_by_order(network, by_order, path, backbone)
        else:
            _require_name_of_layout(path)
            _require_same_paths(network, file, path, backbone)
            network.load_weights(path)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:
        # For a damaged file zlib, h5py and Keras raise all sorts of errors.
        raise WeightsError(
            f"{path.name} cannot be read as weights ({' '.join(str(error).split())[:100]}). "
            "Expected a complete .h5, .weights.h5 or .keras file written by Keras."
        ) from error


@contextmanager
def open_weights(path: Path) -> Iterator[h5py.File]:
    """Open the HDF5 file that is a weights file, or lies in a `.keras` file.

    Parameters
    ----------
    path : Path

    Yields
    ------
    h5py.File
        All of its content lies in itself.

    Raises
    ------
    ValueError
        If it refers to other files, or a member of the `.keras` file is compressed. What else a
        damaged file raises depends on the damage.
    """
    with ExitStack() as opened:
        source: Any = path
        if path.suffix == ".keras":
            archive = opened.enter_context(zipfile.ZipFile(path))
            # Keras compresses nothing; so no small file can fill the memory.
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("it is compressed")
            source = opened.enter_context(archive.open("model.weights.h5"))
        file = opened.enter_context(h5py.File(source))
        foreign = foreign_part(file)
        if foreign:
            raise ValueError(foreign)
        yield file


def _load_by_order(network: Any, file: h5py.Group, path: Path, backbone: str) -> None:
    expected, held = list(_network_arrays(network)), list(_file_arrays(file))
    for wanted, given in zip_longest(expected, held[: len(expected)]):
        _require_fit(wanted, given, path, backbone)
    for wanted, given in zip(expected, held, strict=False):
        wanted.value.assign(np.asarray(given.value, dtype=np.float32))
    for layer in network.layers:
        # Normalization caches values computed from its weights.
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def _network_arrays(network: Any) -> Iterator[_Array]:
    for layer in network.layers:
        for variable in layer.trainable_weights + layer.non_trainable_weights:
            yield _Array(layer.name, variable.name, tuple(variable.shape), variable)


def _file_arrays(file: h5py.Group) -> Iterator[_Array]:
    for layer in _names(file, "layer_names"):
        for name in _names(file[layer], "weight_names"):
            dataset = file[layer][name]
            yield _Array(layer, name, dataset.shape, dataset)


def _names(group: h5py.Group, attribute: str) -> list[str]:
    if attribute in group.attrs:
        chunks = [group.attrs[attribute]]
    else:
        # Long lists are split, since an attribute in HDF5 is smaller than 64 KiB.
        n_chunks = sum(key.startswith(attribute) for key in group.attrs)
        chunks = [group.attrs[f"{attribute}{k}"] for k in range(n_chunks)]
    names = [name for chunk in chunks for name in chunk]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _require_name_of_layout(path: Path) -> None:
    # Keras itself decides by the name.
    if not path.name.endswith((".weights.h5", ".keras")):
        raise WeightsError(
            f"{path.name} holds no weights in the layout of .h5 files. If it was saved as "
            f".weights.h5, rename it to {path.stem}.weights.h5."
        )


def _require_same_paths(network: Any, file: h5py.File, path: Path, backbone: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        # A file written by Keras is the only public description of its layout.
        reference = Path(folder, "expected.weights.h5")
        network.save_weights(reference)
        with h5py.File(reference) as expected:
            order = {layer.name: k for k, layer in enumerate(network.layers)}
            arrays = sorted(_arrays_by_path(expected), key=lambda array: order.get(array.layer, 0))
    for wanted in arrays:
        given = file.get(wanted.value)
        held = None if given is None else _Array(wanted.value, "", given.shape, given)
        _require_fit(wanted, held, path, backbone)


def _arrays_by_path(file: h5py.File) -> Iterator[_Array]:
    paths: list[str] = []
    file.visititems(
        lambda path, item: paths.append(path) if isinstance(item, h5py.Dataset) else None
    )
    for path in paths:
        top = "/".join(path.split("/")[:2])
        layer = file[top]["vars"].attrs.get("name", top) if "vars" in file[top] else top
        number = path.rsplit("/", 1)[-1]
        yield _Array(str(layer), f"weight {number}", file[path].shape, path)


def _require_fit(wanted: _Array, given: _Array | None, path: Path, backbone: str) -> None:
    if given is not None and wanted.shape == given.shape:
        return
    held = "nothing for it" if given is None else f"{given.shape} ({given.layer!r})"
    raise WeightsError(
        f"{path.name} does not fit {backbone}: layer {wanted.layer!r} expects {wanted.name} "
        f"{wanted.shape}, the file has {held}. Use the weights of {backbone}, or "
        f"{_other_backbone(path, backbone)}."
    )


def _other_backbone(path: Path, backbone: str) -> str:
    """Advice: the backbone in the name of the file, if any."""
    named = [name for name in BACKBONES if bare_name(name) in bare_name(path.name)]
    nearest = max(named, key=len, default=backbone)
    return "another --backbone" if nearest == backbone else f"--backbone {nearest}"
