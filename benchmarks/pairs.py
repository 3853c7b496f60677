"""Measure what the pair loss adds: the same training with and without it, seed by seed.

    python benchmarks/pairs.py WORKSPACE --backbone mobilenet_v2 --epochs 4

Each seed also draws the split. For each seed, three networks are trained: `pair`; `pair` with the
"same or different" loss at weight 0, which is the same training in everything else (stages,
steps, order, dropout); and `finetune` with as many epochs and `pair`'s batch size. Accuracy is
that of all attributes on test images. AUROC says how well the distance of embeddings tells pairs
of test images with the same labels from others. The last row is the features of the frozen
backbone.
"""

from pathlib import Path

import click
import numpy as np
import pandas as pd
from measuring import table_head, table_row

import featurepipe
from featurepipe.features.cached import open_caches
from featurepipe.features.extraction.pixel_cache import PixelCache
from featurepipe.metrics import auroc
from featurepipe.models.networks import compiling
from featurepipe.models.networks.network_settings import NetworkSettings
from featurepipe.models.networks.starting_point import cached_features, find_starting_points
from featurepipe.models.networks.verification import pair_distances
from featurepipe.reports.figures import accuracies
from featurepipe.runs.run_folder import Run, load_run
from featurepipe.workspace import Workspace


def verification_auroc(embeddings: np.ndarray, kinds: np.ndarray) -> float:
    """AUROC over all pairs of images: how well distances tell those of one kind from others."""
    first, second = np.triu_indices(len(kinds), 1)
    distances = pair_distances(embeddings[first], embeddings[second])
    return auroc(kinds[first] == kinds[second], -distances)


def kinds_of(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Ids of the test images, and a number for each that is equal where all labels are."""
    test = run.predictions.select("test")
    truth = np.hstack([each.indicator for each in test.labels.values()])
    return test.ids.astype(object), np.unique(truth, axis=0, return_inverse=True)[1].reshape(-1)


def measure(place: Workspace, name: str) -> dict[str, float]:
    """Accuracy, AUROC, epochs and seconds of a run."""
    run = load_run(place.run(name))
    ids, kinds = kinds_of(run)
    with PixelCache.open(place.pixels(run.network.size_px)) as pixels:
        rows = run.network.open_engine().embed(pixels.read(ids))
    embeddings = rows[:, sum(run.network.outputs.values()) :]
    return {
        "accuracy": accuracies(run.predictions.select("test"))["all"],
        "AUROC": verification_auroc(embeddings, kinds),
        "epochs": run.info.costs.epochs,
        "s": run.info.costs.fit_s,
    }


def frozen(place: Workspace, name: str, backbone: str) -> dict[str, float]:
    """AUROC of the features that the training started from."""
    caches = open_caches(place.stores(), [])
    settings = NetworkSettings.of("pair")
    (start,) = find_starting_points(settings, caches, backbones=[backbone])
    ids, kinds = kinds_of(load_run(place.run(name)))
    return {"AUROC": verification_auroc(cached_features(caches, start.headless, ids), kinds)}


@click.command(help=__doc__.splitlines()[0])
@click.argument("workspace", type=click.Path(exists=True, path_type=Path))
@click.option("--backbone", default="mobilenet_v2", show_default=True, help="Backbone to train.")
@click.option("--epochs", default=4, show_default=True, help="Epochs of each of three stages.")
@click.option("--seeds", default=3, show_default=True, help="Number of seeds.")
def main(workspace: Path, backbone: str, epochs: int, seeds: int) -> None:
    """Measure, and print a table."""
    place, rows = Workspace(workspace), []
    options = {"backbone": backbone, "epochs": epochs, "workspace": workspace, "batch_size": 32}
    weight = compiling.SAME_WEIGHT
    for seed in range(seeds):
        for method, network, same_weight in (
            ("pair", "pair", weight),
            ("pair, without its loss", "pair", 0.0),
            ("finetune", "finetune", weight),
        ):
            compiling.SAME_WEIGHT = same_weight
            # Both variants of pair have the same name: measure one before the other replaces it.
            table = featurepipe.train(network, **options, seed=seed, resume=network != "pair")
            run = table["run"].iloc[0]
            rows.append({"method": method, "seed": seed, **measure(place, run)})
            click.echo(rows[-1], err=True)
        rows.append({"method": "frozen features", "seed": seed, **frozen(place, run, backbone)})
    table = pd.DataFrame(rows)
    rounded = table.round(4).to_numpy().tolist()
    click.echo("\n".join([table_head(table.columns), *map(table_row, rounded)]))
    for name in ("accuracy", "AUROC"):
        wide = table.pivot(index="seed", columns="method", values=name)
        gain = wide["pair"] - wide["pair, without its loss"]
        click.echo(
            f"{name}, pair minus without: {gain.mean():+.4f}, by seed {gain.round(4).tolist()}"
        )


if __name__ == "__main__":
    main()
