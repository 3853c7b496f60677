"""What computes features that were made before, with the weights where they are now."""

from collections.abc import Sequence
from pathlib import Path

from featurepipe.errors import UsageError, WeightsError
from featurepipe.features.backbones import BACKBONES, bare_name
from featurepipe.features.extraction.embedders import Embedder
from featurepipe.features.extraction.recipe import Recipe, repeat_recipe
from featurepipe.features.store import StoreKey
from featurepipe.models.networks.saved import NETWORK_FILE
from featurepipe.runs.run_folder import Run
from featurepipe.runs.run_info import HeadRunInfo


def embedders_of(run: Run, weights: Sequence[str]) -> Sequence[Embedder]:
    """What computes the blocks of features that the heads of a run read, in their order.

    Parameters
    ----------
    run : Run
    weights : sequence of str
        See `featurepipe.predict`.

    Raises
    ------
    StoreMismatchError
        If the features would differ from those that the run was trained on.
    FeaturepipeError
        If the weights cannot be used.
    """
    if isinstance(run.info, HeadRunInfo):
        made = [(block.recipe, block.weights_source) for block in run.info.blocks]
        return recipes_now(made, weights)
    if weights:
        raise UsageError(
            f"Run {run.name!r} is a trained network and keeps its own weights. Omit --weights."
        )
    assert run.network is not None
    run.file(NETWORK_FILE)
    return [run.network]


def recipes_now(made: Sequence[tuple[StoreKey, str]], weights: Sequence[str]) -> list[Recipe]:
    """The recipes that features were made with.

    Parameters
    ----------
    made : sequence of (StoreKey, str)
        Key of each store, and where its weights were.
    weights : sequence of str
        Where weights are now, if they were moved; see `featurepipe.predict`.

    Raises
    ------
    UsageError
        If `weights` cannot be read, or is for another backbone.
    StoreMismatchError
        If the weights have changed.
    WeightsError
        If they are gone.
    """
    moved = _moved_weights([key.backbone for key, _ in made], weights)
    for key, source in made:
        is_gone = key.weights.kind == "file" and not Path(source).exists()
        if is_gone and key.backbone not in moved:
            raise WeightsError(
                f"The weights of {key.backbone} are gone: there is no file {source}. Say where "
                f"they are now with --weights {key.backbone}=PATH."
            )
    return [repeat_recipe(key, moved.get(key.backbone, source)) for key, source in made]


def _moved_weights(backbones: Sequence[str], weights: Sequence[str]) -> dict[str, str]:
    """The files of ``--weights`` by backbone."""
    names = ", ".join(dict.fromkeys(backbones))
    by_bare_name = {bare_name(backbone): backbone for backbone in backbones}
    moved = {}
    for text in weights:
        name, separator, path = text.rpartition("=")
        if not separator and len(set(backbones)) > 1:
            raise UsageError(
                f"--weights {text!r} does not name a backbone, but the features are those of "
                f"{names}. Expected BACKBONE=PATH."
            )
        backbone = by_bare_name.get(bare_name(name)) if separator else backbones[0]
        if backbone is None:
            raise UsageError(
                f"--weights {text!r} is for {name!r}, but the features are those of {names}. Omit "
                "it."
            )
        if backbone in BACKBONES and BACKBONES[backbone].kind != "network":
            raise UsageError(
                f"--weights {text!r} does not apply to {backbone}, which has no weights. Omit it."
            )
        moved[backbone] = path
    return moved
