"""What is refused before any image is decoded: all that settings and labels can tell."""

from collections.abc import Mapping

from featurepipe.errors import UsageError
from featurepipe.manifest import Labels
from featurepipe.models.answers.finishing import attributes_with_thresholds
from featurepipe.models.networks.batch_plan import require_pairs
from featurepipe.models.networks.network_settings import NetworkSettings
from featurepipe.models.networks.outputs import make_targets


def check_settings(settings: NetworkSettings, labels: Mapping[str, Labels]) -> None:
    """Refuse settings that cannot be trained with these labels.

    Parameters
    ----------
    settings : NetworkSettings
    labels : mapping of str to Labels
        Labels of all images of the manifest, by attribute. No pixels are needed.

    Raises
    ------
    UsageError
        If an option names an attribute that does not exist, or ``thresholds`` are given and every
        output is a softmax.
    FitError
        If the network is trained on pairs, and none can be formed.
    """
    _require_attributes("--loss-weights", settings.loss_weights, labels)
    _require_attributes("--branches", settings.branches, labels)
    attributes_with_thresholds(labels, settings.task, settings.thresholds)
    if settings.spec.pairs:
        require_pairs(make_targets(labels, settings).identities, settings.batch_size)


def _require_attributes(
    option: str, given: Mapping[str, object], labels: Mapping[str, Labels]
) -> None:
    for name in given:
        if name not in labels:
            raise UsageError(
                f"{option} names the attribute {name!r}, which does not exist. Use one of: "
                f"{', '.join(labels)}."
            )
