"""Which features an extraction computes: those that are asked for, or the workspace's own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from featurepipe.errors import StoreDamagedError, StoreError, UsageError
from featurepipe.features.backbones import find_backbone
from featurepipe.features.engines import choose_engine, require_precision
from featurepipe.features.extraction.file_recipe import FileOptions, is_file_or_preset
from featurepipe.features.extraction.recipe import Recipe, make_recipe, repeat_recipe
from featurepipe.features.extraction.sharded_store import open_any_shard
from featurepipe.features.extraction.views import find_view
from featurepipe.features.store import SHARDS_SUFFIX, FeatureStore, StoreKey
from featurepipe.features.store.healing import open_left
from featurepipe.features.weights import weights_by_backbone
from featurepipe.words import examples


@dataclass(frozen=True)
class FeatureOptions:
    """How features are computed; see `featurepipe.extract`.

    Attributes
    ----------
    weights : str or mapping of str to str
    pooling : str
    view : tuple of str
    size_px : int, optional
    of_file : FileOptions
    fast_decode : bool
    engine, precision : str
    seed : int
    """

    weights: str | Mapping[str, str] = "imagenet"
    pooling: str = "avg"
    view: tuple[str, ...] = ("rgb",)
    size_px: int | None = None
    of_file: FileOptions = field(default_factory=FileOptions)
    fast_decode: bool = False
    engine: str = "auto"
    precision: str = "auto"
    seed: int = 0

    def require_possible(self, backbones: Sequence[str]) -> None:
        """Stop at what is wrong with the options alone; nothing is read or downloaded.

        Parameters
        ----------
        backbones : sequence of str

        Raises
        ------
        UnknownNameError, UsageError, WeightsError
        """
        self._weights_of(backbones)
        self._require_one_file(backbones)
        for name in self.view:
            find_view(name)
        require_precision(self.precision)
        choose_engine(self.engine)

    def recipes(self, backbones: Sequence[str]) -> list[Recipe]:
        """The recipe of each backbone and view; ImageNet weights are downloaded if needed.

        Parameters
        ----------
        backbones : sequence of str

        Raises
        ------
        FeaturepipeError
            As `make_recipe`, or if a backbone cannot have the precision.
        """
        recipes = []
        for name, weights in self._weights_of(backbones).items():
            recipe = make_recipe(
                name,
                weights,
                size_px=self.size_px,
                pooling=self.pooling,
                engine=self.engine,
                fast_decode=self.fast_decode,
                seed=self.seed,
                of_file=self.of_file,
            )
            require_precision(self.precision, recipe.network, recipe.engine)
            recipes += [replace(recipe, view=view) for view in self.view]
        return recipes

    def _weights_of(self, backbones: Sequence[str]) -> dict[str, str]:
        """The weights of each backbone; files and presets come last and have their own."""
        files = [name for name in backbones if is_file_or_preset(name)]
        specs = [find_backbone(name) for name in backbones if name not in files]
        if files and not specs and self.weights != "imagenet":
            raise UsageError(
                f"--weights applies to named backbones; {examples(files)} has its own weights. "
                "Omit it."
            )
        return weights_by_backbone(self.weights, specs) | dict.fromkeys(files, "none")

    def _require_one_file(self, backbones: Sequence[str]) -> None:
        """Stop if options of a network in a file or preset are given for anything else."""
        given = [name for name, value in vars(self.of_file).items() if value is not None]
        files = [name for name in backbones if is_file_or_preset(name)]
        if given and len(files) != 1:
            what = "Preprocessing" if "preprocess" in given else _flag(given[0])
            raise UsageError(
                f"{what} applies to one network in a file, and --backbone names {len(files)}. "
                "Extract each file or preset by itself; the preprocessing of named backbones is "
                "known."
            )


def recipes_of_stores(stores: Sequence[Path], options: FeatureOptions) -> dict[Path, Recipe]:
    """The recipes that the stores of a workspace were made with.

    Parameters
    ----------
    stores : sequence of Path
    options : FeatureOptions
        Must be left as they are, since each store has its own.

    Raises
    ------
    UsageError
        If an option is given.
    StoreError
        If a store cannot be read.
    FeaturepipeError
        If the network of a store is no longer what it was, or where it was.
    """
    default = vars(FeatureOptions())
    given = [name for name, value in vars(options).items() if value != default[name]]
    made = {path: _key_and_weights(path) for path in stores}
    if given:
        has = examples(sorted({key.backbone for key, _ in made.values()}))
        raise UsageError(
            f"{_flag(given[0])} requires --backbone, since the workspace has features of {has}. "
            "Without both, all of these are brought up to date."
        )
    return {path: repeat_recipe(key, weights) for path, (key, weights) in made.items()}


def _key_and_weights(path: Path) -> tuple[StoreKey, str]:
    with _open(path) as store:
        return store.key, store.made_by.get("weights_source", "none")


def _open(path: Path) -> FeatureStore:
    try:
        return open_any_shard(path) if path.suffix == SHARDS_SUFFIX else FeatureStore.open(path)
    except StoreDamagedError as error:
        # It is healed later: what is left of it may still say what it was made with.
        left, _ = open_left(path)
        if left is None:
            raise StoreError(
                f"Nothing can be read of the feature store {path}: {error.damage}. Make it again "
                "with featurepipe extract --backbone and its options, or delete the file."
            ) from error
        return left


def _flag(name: str) -> str:
    special = {"of_file": "Preprocessing", "size_px": "--size"}
    return special.get(name, f"--{name.replace('_', '-')}")
