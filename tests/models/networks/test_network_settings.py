"""Settings, recipes and schedules: all that is known without Keras."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest

from featurepipe.errors import UnknownNameError, UsageError
from featurepipe.models.networks.network_settings import NetworkSettings
from featurepipe.models.networks.recipes import NETWORKS, Augmentation, Stage, find_network
from featurepipe.models.networks.schedules import (
    SCHEDULES,
    has_ended,
    rate_of_epoch,
    rate_on_plateau,
)

INF, NAN = math.inf, math.nan

LITTLE = Augmentation(rotation=25, shift=0.1, shear=0.2, zoom=0.2, flip=True)
DOGS = Augmentation(rotation=30, shift=0.2, shear=0.0, zoom=0.2, flip=True)


@pytest.mark.parametrize(
    ("name", "task", "size_px", "n_epochs", "batch_size", "augments", "augmentation"),
    [
        ("finetune", "per-attribute", None, 100, 128, True, DOGS),
        ("fashionnet", "per-attribute", 96, 50, 32, False, LITTLE),
        ("smallervggnet", "multi-label", 96, 75, 32, True, LITTLE),
        ("resnet50", "multi-label", 224, 150, 16, True, LITTLE),
        ("pair", "per-attribute", None, 100, 32, True, DOGS),
    ],
)
def test_without_options_it_is_the_published_recipe(
    name, task, size_px, n_epochs, batch_size, augments, augmentation
):
    settings = NetworkSettings.of(name)
    assert settings.task == task
    assert settings.spec.size_px == size_px
    assert settings.n_epochs == n_epochs
    assert settings.batch_size == batch_size
    assert settings.augments is augments
    assert settings.spec.augmentation == augmentation
    assert settings.spec.has_backbone is (name in ("finetune", "pair"))
    assert settings.spec.branches is (name == "fashionnet")
    assert settings.spec.pairs is (name == "pair")


def stages_of(settings):
    """What tells a stage from another, as tuples."""
    return [
        (
            stage.optimizer,
            stage.learning_rate,
            stage.momentum,
            stage.schedule,
            stage.n_blocks,
            stage.augments,
        )
        for stage in settings.stages
    ]


SGD = ("sgd", 1e-3, 0.99, "constant")
ADAM = ("adam", 1e-3, 0.0)


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("finetune", [(*SGD, 0, True), (*SGD, 2, True), (*SGD, 2, False)]),
        ("fashionnet", [(*ADAM, "decay", None, False)]),
        ("smallervggnet", [(*ADAM, "decay", None, True)]),
        ("resnet50", [(*ADAM, "plateau", None, True)]),
        (
            "pair",
            [
                (*ADAM, "constant", 0, True),
                ("sgd", 1e-4, 0.9, "constant", 2, True),
                ("sgd", 1e-4, 0.9, "constant", 2, False),
            ],
        ),
    ],
)
def test_stages_are_those_of_the_published_recipe(name, stages):
    assert stages_of(NetworkSettings.of(name)) == stages


def test_there_are_five_networks_and_case_does_not_matter():
    assert list(NETWORKS) == ["finetune", "fashionnet", "smallervggnet", "resnet50", "pair"]
    assert find_network("ResNet50") is NETWORKS["resnet50"]
    assert NetworkSettings.of("SmallerVGGNet").network == "smallervggnet"
    assert all(stage.schedule in SCHEDULES for spec in NETWORKS.values() for stage in spec.stages)


@pytest.mark.parametrize("name", ["finetune", "pair"])
def test_without_augmentation_the_last_stage_is_dropped(name):
    stages = NetworkSettings.of(name, augment=False).stages
    assert [stage.title for stage in stages] == ["top", "last blocks"]
    assert [stage.n_blocks for stage in stages] == [0, 2]
    assert not any(stage.augments for stage in stages)


def test_a_network_of_one_stage_keeps_it_whether_augmented_or_not():
    assert [s.augments for s in NetworkSettings.of("smallervggnet", augment=False).stages] == [
        False
    ]
    assert [s.augments for s in NetworkSettings.of("fashionnet", augment=True).stages] == [True]


def test_what_was_said_reaches_every_stage():
    settings = NetworkSettings.of(
        "finetune", learning_rate=0.02, schedule="cosine", unfreeze=3, epochs=4, batch_size=8,
        task="multi-label",
    )  # fmt: skip
    assert [s.learning_rate for s in settings.stages] == [0.02] * 3
    assert [s.schedule for s in settings.stages] == ["cosine"] * 3
    # The first stage trains the top alone, however many blocks are to move later.
    assert [s.n_blocks for s in settings.stages] == [0, 3, 3]
    assert [s.momentum for s in settings.stages] == [0.99] * 3
    assert (settings.n_epochs, settings.batch_size) == (4, 8)
    assert settings.task == "multi-label"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"network": "fashonnet"}, "Unknown network 'fashonnet'. Did you mean 'fashionnet'?"),
        ({"task": "joint"}, "Unknown task 'joint'. Expected one of: multi-label, per-attribute."),
        ({"schedule": "cosin"}, "Unknown schedule 'cosin'. Did you mean 'cosine'?"),
        ({"class_weight": "balancd"}, "Unknown class weight 'balancd'. Did you mean 'balanced'?"),
        ({"calibrate": "platt"}, "Unknown calibration 'platt'."),
        (
            {"network": "fashionnet", "branches": {"color": "red"}},
            "Unknown branch 'red'. Did you mean 'grey'?",
        ),
    ],
)
def test_names_that_do_not_exist_are_refused(options, text):
    with pytest.raises(UnknownNameError) as caught:
        NetworkSettings.of(**{"network": "finetune"} | options)
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    ("network", "options", "text"),
    [
        (
            "fashionnet",
            {"unfreeze": 2},
            "--unfreeze only applies to finetune and pair. Remove it, or use `train finetune`.",
        ),
        (
            "finetune",
            {"branches": {"color": "rgb"}},
            "--branches only applies to fashionnet. Remove it, or use `train fashionnet`.",
        ),
        (
            "finetune",
            {"positive_pairs": 0.5},
            "--positive-pairs only applies to pair. Remove it, or use `train pair`.",
        ),
        (
            "resnet50",
            {"positive_pairs": 0.0},
            "--positive-pairs only applies to pair. Remove it, or use `train pair`.",
        ),
    ],
)
def test_options_of_another_network_are_refused(network, options, text):
    with pytest.raises(UsageError) as caught:
        NetworkSettings.of(network, **options)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"epochs": 0}, "--epochs is 0. Use 1 or more."),
        ({"batch_size": 1}, "--batch-size is 1. Use 2 or more."),
        ({"unfreeze": 0}, "--unfreeze is 0. Use 1 or more."),
        ({"learning_rate": 0.0}, "--learning-rate is 0.0. Use a number greater than 0."),
        ({"learning_rate": NAN}, "--learning-rate is nan. Use a number greater than 0."),
        ({"positive_pairs": 1.5}, "--positive-pairs is 1.5. Use a share between 0 and 1."),
        ({"loss_weights": {"color": -1.0}}, "--loss-weights color is -1.0. Use 0 or more."),
    ],
)
def test_numbers_out_of_range_are_refused(options, text):
    with pytest.raises(UsageError) as caught:
        NetworkSettings.of("pair", **options)
    assert str(caught.value) == text


@pytest.mark.parametrize("name", NETWORKS)
def test_settings_hold_final_values_that_json_can_hold(name):
    settings = NetworkSettings.of(name)
    unknown = {key for key, value in asdict(settings).items() if value is None}
    # Thresholds are not fitted unless asked for; only pairs have positive pairs.
    assert unknown == {"thresholds"} | (set() if name == "pair" else {"positive_pairs"})
    as_json = json.dumps(asdict(settings), sort_keys=True)
    recipe = find_network(name)
    given = NetworkSettings.of(
        name.upper(), task=recipe.task, epochs=recipe.n_epochs, batch_size=recipe.batch_size,
        augment=recipe.augments, branches={}, loss_weights={},
    )  # fmt: skip
    assert json.dumps(asdict(given), sort_keys=True) == as_json


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"network": "nosuch"}, "Unknown network 'nosuch'"),
        ({"task": "joint"}, "Unknown task 'joint'"),
        ({"stages": (Stage("all", schedule="cosin"),)}, "Unknown schedule 'cosin'"),
        ({"n_epochs": 0}, "--epochs is 0"),
    ],
)
def test_settings_that_were_kept_are_checked_as_well(changed, text):
    with pytest.raises(UsageError) as caught:
        replace(NetworkSettings.of("pair"), **changed)
    assert str(caught.value).startswith(text)


def test_pairs_are_positive_as_often_as_negative_unless_said():
    assert NetworkSettings.of("pair").positive_pairs == 0.5
    assert NetworkSettings.of("pair", positive_pairs=0.0).positive_pairs == 0.0


def test_thresholds_that_cannot_be_read_are_refused():
    with pytest.raises(UsageError, match="Cannot read the thresholds 'f2'"):
        NetworkSettings.of("resnet50", thresholds="f2")


@pytest.mark.parametrize(
    ("attribute", "branch"),
    [("Colour", "rgb"), ("colors", "rgb"), ("category", "grey"), ("colourful", "grey")],
)
def test_attributes_called_colour_are_shown_colours(attribute, branch):
    assert NetworkSettings.of("fashionnet").branch_of(attribute) == branch


def test_a_branch_that_was_said_is_taken():
    settings = NetworkSettings.of("fashionnet", branches={"color": "grey", "breed": "rgb"})
    assert [settings.branch_of(name) for name in ("color", "breed", "article")] == [
        "grey", "rgb", "grey",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("losses", "rate"),
    [
        ([], 0.1),
        ([1.0] + 9 * [2.0], 0.1),
        ([1.0] + 10 * [1.0], 0.05),
        # Counted anew after a halving.
        ([1.0] + 19 * [2.0], 0.05),
        ([1.0] + 20 * [2.0], 0.025),
        # A better one begins the count anew, and so does the best of all, not of the last ten.
        ([1.0] + 9 * [2.0] + [0.9] + 9 * [0.95], 0.1),
        ([1.0] + 9 * [2.0] + [0.9] + 10 * [0.95], 0.05),
        ([1.0] + 5 * [3.0] + 5 * [2.0], 0.05),
        # A loss that is no number is no better one, and none is worse than it.
        (10 * [NAN], 0.05),
        ([NAN, 1.0] + 9 * [NAN], 0.1),
        ([NAN, 1.0] + 10 * [NAN], 0.05),
        ([1.0] + 9 * [INF] + [0.5], 0.1),
    ],
)
def test_a_rate_is_halved_after_ten_epochs_without_a_better_loss(losses, rate):
    assert rate_on_plateau(0.1, losses) == rate


def test_a_halved_rate_stays_above_a_millionth_and_no_rate_rises():
    flat = [1.0] + 300 * [1.0]
    assert rate_on_plateau(0.1, flat) == 1e-6
    assert rate_on_plateau(1e-7, flat) == 1e-7


@pytest.mark.parametrize(
    ("losses", "n_epochs", "patience", "best_before", "ended"),
    [
        ([], 1, 1, INF, False),
        ([1.0], 1, 5, INF, True),
        ([1.0, 2.0], 9, 2, INF, False),
        ([1.0, 2.0, 2.0], 9, 2, INF, True),
        ([1.0, 1.0, 1.0], 9, 2, INF, True),
        ([1.0, 2.0, 0.5, 0.6], 9, 2, INF, False),
        # Epochs that are no better than the stage before are without a better loss.
        ([1.0, 0.9], 9, 2, 0.5, True),
        ([1.0, 0.9], 9, 3, 0.5, False),
        ([1.0, 0.4], 9, 2, 0.5, False),
        ([NAN, NAN], 9, 3, INF, False),
        ([NAN, NAN, NAN], 9, 3, INF, True),
        ([NAN, 1.0, NAN], 9, 2, INF, False),
        ([NAN, 1.0, NAN, NAN], 9, 2, INF, True),
    ],
)
def test_a_stage_ends_when_its_patience_does(losses, n_epochs, patience, best_before, ended):
    assert has_ended(losses, n_epochs, patience, best_before) is ended


def test_the_rate_of_an_epoch_is_that_of_the_schedule():
    cosine = [rate_of_epoch("cosine", 0.1, [1.0] * k, n_epochs=4) for k in range(4)]
    np.testing.assert_allclose(cosine, [0.1, 0.085355, 0.05, 0.014645], rtol=1e-4)
    waited = [1.0] + 10 * [2.0]
    assert rate_of_epoch("plateau", 0.1, waited, n_epochs=50) == 0.05
    assert rate_of_epoch("constant", 0.1, waited, n_epochs=50) == 0.1
