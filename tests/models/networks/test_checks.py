"""Settings that cannot be trained with the labels are refused, without any pixels."""

from dataclasses import replace

import pytest

from featurepipe.errors import FitError, UsageError
from featurepipe.manifest.labels import labels_of
from featurepipe.models.networks.checks import check_settings
from featurepipe.models.networks.network_settings import NetworkSettings

KINDS = labels_of("kind", [("shoe",), ("shirt",), ("shoe",), ("shirt",)])
TAGS = labels_of("tags", [("new", "sale"), (), ("sale",), ("new",)])


@pytest.mark.parametrize(
    ("option", "given"), [("loss_weights", {"color": 2.0}), ("branches", {"color": "rgb"})]
)
def test_options_of_an_attribute_that_does_not_exist_are_refused(option, given):
    settings = NetworkSettings.of("fashionnet", **{option: given})
    with pytest.raises(UsageError) as caught:
        check_settings(settings, {"kind": KINDS, "tags": TAGS})
    assert str(caught.value) == (
        f"--{option.replace('_', '-')} names the attribute 'color', which does not exist. Use one "
        "of: kind, tags."
    )
    check_settings(settings, {"color": KINDS})


def test_thresholds_without_sets_of_labels_are_refused():
    settings = NetworkSettings.of("fashionnet", thresholds="f1")
    with pytest.raises(UsageError) as caught:
        check_settings(settings, {"kind": KINDS})
    assert str(caught.value) == (
        "--thresholds f1 only applies to sets of labels, and every image has exactly one class of "
        "each attribute. Omit it, or use --task multi-label."
    )
    check_settings(settings, {"kind": KINDS, "tags": TAGS})
    check_settings(replace(settings, task="multi-label"), {"kind": KINDS})


def test_pairs_that_cannot_be_formed_are_refused():
    check_settings(NetworkSettings.of("pair"), {"kind": KINDS})
    with pytest.raises(FitError, match="in batches of 3"):
        check_settings(NetworkSettings.of("pair", batch_size=3), {"kind": KINDS})
    with pytest.raises(FitError, match="4 different label combinations"):
        check_settings(NetworkSettings.of("pair"), {"tags": TAGS})
    check_settings(NetworkSettings.of("finetune", batch_size=3), {"tags": TAGS})
