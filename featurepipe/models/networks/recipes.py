"""Networks: what they are called, and the recipe by which each is trained unless said otherwise.

Data only, so that they can be listed without Keras.
"""

from dataclasses import dataclass, replace

from featurepipe.errors import UnknownNameError


@dataclass(frozen=True)
class Augmentation:
    """How far images are changed at random, each anew in every epoch.

    Attributes
    ----------
    rotation : float
        Degrees, to either side.
    shift, zoom, shear : float
        Shares of the side, to either side.
    flip : bool
        Whether half of the images are mirrored left to right.
    """

    rotation: float
    shift: float
    zoom: float
    shear: float = 0.0
    flip: bool = True


@dataclass(frozen=True)
class Stage:
    """One part of a training; the next begins from the best weights so far.

    Attributes
    ----------
    title : str
    optimizer : {"adam", "sgd"}
    learning_rate : float
        At the beginning.
    momentum : float
        Of SGD, Nesterov's.
    schedule : {"constant", "decay", "cosine", "plateau"}
        See `featurepipe.models.networks.schedules`.
    augments : bool
        Whether images are changed at random, where the network has an augmentation.
    n_blocks : int or None
        How many of the backbone's last blocks are trained; 0: none, the top alone. None:
        everything, as in a network without a backbone.
    patience : int
        Epochs without a better validation loss after which it ends.
    """

    title: str
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    momentum: float = 0.0
    schedule: str = "constant"
    augments: bool = True
    n_blocks: int | None = None
    patience: int = 10


@dataclass(frozen=True)
class NetworkSpec:
    """One network, and the published recipe by which it is trained.

    Attributes
    ----------
    name : str
        As on the command line.
    module : str
        Module of this package that has its `build`.
    task : {"per-attribute", "multi-label"}
        What its outputs are unless said otherwise: a softmax an attribute, or a sigmoid a label.
    size_px : int or None
        Side of its pictures; None: the backbone's.
    n_epochs, batch_size : int
        Epochs of each stage at most.
    stages : tuple of Stage
    augmentation : Augmentation
    augments : bool
        Whether it is trained with it unless said otherwise.
    has_backbone : bool
        Whether it begins from a backbone of the table.
    branches : bool
        Whether each attribute has a branch of its own.
    pairs : bool
        Whether it is trained on pairs of images.
    """

    name: str
    module: str
    task: str
    size_px: int | None
    n_epochs: int
    batch_size: int
    stages: tuple[Stage, ...]
    augmentation: Augmentation
    augments: bool = True
    has_backbone: bool = False
    branches: bool = False
    pairs: bool = False


_LITTLE = Augmentation(rotation=25, shift=0.1, shear=0.2, zoom=0.2)
_DOGS = Augmentation(rotation=30, shift=0.2, zoom=0.2)

_FINETUNE = Stage("top", "sgd", 1e-3, momentum=0.99, n_blocks=0)
_PAIR = Stage("top", "adam", 1e-3, n_blocks=0)
_PAIR_BLOCKS = Stage("last blocks", "sgd", 1e-4, momentum=0.9, n_blocks=2)

NETWORKS: dict[str, NetworkSpec] = {
    spec.name: spec
    for spec in (
        NetworkSpec(
            "finetune", "finetune", "per-attribute", None, 100, 128,
            (
                _FINETUNE,
                replace(_FINETUNE, title="last blocks", n_blocks=2),
                replace(_FINETUNE, title="without augmentation", n_blocks=2, augments=False),
            ),
            _DOGS, has_backbone=True,
        ),
        NetworkSpec(
            "fashionnet", "fashionnet", "per-attribute", 96, 50, 32,
            (Stage("all", schedule="decay", patience=20),),
            _LITTLE, augments=False, branches=True,
        ),
        NetworkSpec(
            "smallervggnet", "smallervggnet", "multi-label", 96, 75, 32,
            (Stage("all", schedule="decay", patience=25),),
            _LITTLE,
        ),
        NetworkSpec(
            "resnet50", "resnet50", "multi-label", 224, 150, 16,
            (Stage("all", schedule="plateau", patience=30),),
            _LITTLE,
        ),
        NetworkSpec(
            "pair", "pair", "per-attribute", None, 100, 32,
            (
                _PAIR,
                _PAIR_BLOCKS,
                replace(_PAIR_BLOCKS, title="without augmentation", augments=False),
            ),
            _DOGS, has_backbone=True, pairs=True,
        ),
    )
}  # fmt: skip


def find_network(name: str) -> NetworkSpec:
    """The network of a name; case is ignored.

    Raises
    ------
    UnknownNameError
        If there is no such network.

    Examples
    --------
    >>> find_network("FashionNet").size_px
    96
    """
    for spec in NETWORKS.values():
        if spec.name == name.lower():
            return spec
    raise UnknownNameError("network", name, NETWORKS)
