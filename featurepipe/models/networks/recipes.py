"""The networks that can be trained, and the published recipe of each.

Data only: the table can be listed without importing Keras.
"""

from dataclasses import dataclass, replace

from featurepipe.errors import UnknownNameError


@dataclass(frozen=True)
class Augmentation:
    """Random changes of the training images, drawn again in every epoch.

    Attributes
    ----------
    rotation : float
        Largest rotation in degrees, to either side.
    shift, zoom, shear : float
        Largest change as a share of the image's side, to either side.
    flip : bool
        Whether to mirror half of the images left to right.
    """

    rotation: float
    shift: float
    zoom: float
    shear: float = 0.0
    flip: bool = True


@dataclass(frozen=True)
class Stage:
    """One stage of a training; each stage starts from the best weights so far.

    Attributes
    ----------
    title : str
        Name of the stage in log lines and in the history.
    optimizer : {"adam", "sgd"}
    learning_rate : float
        Learning rate of the first step.
    momentum : float
        Nesterov momentum of SGD.
    schedule : {"constant", "decay", "cosine", "plateau"}
        See `featurepipe.models.networks.schedules`.
    augments : bool
        Whether the training images are augmented.
    n_blocks : int or None
        Number of final backbone blocks to train; 0 trains only the output layers.
        None trains everything, as in a network without a backbone.
    patience : int
        The stage ends after this many epochs without a lower validation loss.
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
    """One network and its published recipe.

    Attributes
    ----------
    name : str
        Name on the command line, and of the module in `featurepipe.models.networks.zoo`
        whose `build` makes the network.
    task : {"per-attribute", "multi-label"}
        Default task: a softmax for each attribute, or a sigmoid for each label.
    size_px : int or None
        Default image size; None: that of the backbone.
    min_size_px : int or None
        Smallest image size for which the network can be built; None: that of the backbone.
    n_epochs : int
        Maximum number of epochs of each stage.
    batch_size : int
    stages : tuple of Stage
    augmentation : Augmentation
    augments : bool
        Whether the training images are augmented by default.
    has_backbone : bool
        Whether the network starts from a pretrained backbone.
    branches : bool
        Whether each attribute has a branch of its own.
    positive_pairs : float or None
        Share of pairs that show the same; None: the network is not trained on pairs.
    """

    name: str
    task: str
    size_px: int | None
    min_size_px: int | None
    n_epochs: int
    batch_size: int
    stages: tuple[Stage, ...]
    augmentation: Augmentation
    augments: bool = True
    has_backbone: bool = False
    branches: bool = False
    positive_pairs: float | None = None

    @property
    def pairs(self) -> bool:
        """Whether the network is trained on pairs of images."""
        return self.positive_pairs is not None


_LITTLE = Augmentation(rotation=25, shift=0.1, shear=0.2, zoom=0.2)
_DOGS = Augmentation(rotation=30, shift=0.2, zoom=0.2)

_FINETUNE = Stage("top", "sgd", 1e-3, momentum=0.99, n_blocks=0)
_PAIR = Stage("top", "adam", 1e-3, n_blocks=0)
_PAIR_BLOCKS = Stage("last blocks", "sgd", 1e-4, momentum=0.9, n_blocks=2)

NETWORKS: dict[str, NetworkSpec] = {
    spec.name: spec
    for spec in (
        NetworkSpec(
            "finetune", "per-attribute",
            size_px=None, min_size_px=None, n_epochs=100, batch_size=128,
            stages=(
                _FINETUNE,
                replace(_FINETUNE, title="last blocks", n_blocks=2),
                replace(_FINETUNE, title="without augmentation", n_blocks=2, augments=False),
            ),
            augmentation=_DOGS, has_backbone=True,
        ),
        # Pooling by 3, 2 and 2 leaves at least one position.
        NetworkSpec(
            "fashionnet", "per-attribute",
            size_px=96, min_size_px=12, n_epochs=50, batch_size=32,
            stages=(Stage("all", schedule="decay", patience=20),),
            augmentation=_LITTLE, augments=False, branches=True,
        ),
        NetworkSpec(
            "smallervggnet", "multi-label",
            size_px=96, min_size_px=12, n_epochs=75, batch_size=32,
            stages=(Stage("all", schedule="decay", patience=25),),
            augmentation=_LITTLE,
        ),
        # The least that Keras accepts: five times halved, it leaves one position.
        NetworkSpec(
            "resnet50", "multi-label",
            size_px=224, min_size_px=32, n_epochs=150, batch_size=16,
            stages=(Stage("all", schedule="plateau", patience=30),),
            augmentation=_LITTLE,
        ),
        NetworkSpec(
            "pair", "per-attribute",
            size_px=None, min_size_px=None, n_epochs=100, batch_size=32,
            stages=(
                _PAIR,
                _PAIR_BLOCKS,
                replace(_PAIR_BLOCKS, title="without augmentation", augments=False),
            ),
            augmentation=_DOGS, has_backbone=True, positive_pairs=0.5,
        ),
    )
}  # fmt: skip


def find_network(name: str) -> NetworkSpec:
    """Look up a network by its name, ignoring case.

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
