import json
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from featurepipe.errors import RunError
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.studies.learning_curve import CurvePoint, Doubling
from featurepipe.runs.run_facts import FeatureTrial, StartingNetwork, TunedHead
from featurepipe.runs.run_files import RUN_FILE
from featurepipe.runs.run_info import read_digest, read_run_info, write_run_info
from featurepipe.splits import SplitSettings
from run_infos import head_info, network_info

DELETED = object()


def full_head_info():
    """With everything that most runs lack."""
    info = head_info()
    split = info.split.model_copy(
        update={"settings": SplitSettings(hold_out=("red_hat",), group="patient")}
    )
    return head_info(
        split=split,
        objective="unseen",
        feature_trials=(
            FeatureTrial(
                attribute="color",
                blocks=("xception:rgb",),
                seen_accuracy=0.9,
                unseen_accuracy=np.nan,
                chosen=True,
            ),
        ),
        tuned={
            "color": TunedHead(
                chosen={"variance_threshold": "1%", "alpha_by_rows": 10.0},
                log_loss=0.25,
                default_log_loss=None,
            ),
            "kind": None,
        },
        curve=(CurvePoint("color", 0.5, 30, 0.7, 0.01, 0.6, 0.02),),
        doublings=(Doubling("color", 30, 60, 0.75, 0.05, 0.01),),
        memory_bytes=4 * 10**9,
        chunk_rows=2048,
    )


@pytest.mark.parametrize(
    "info",
    [
        head_info(),
        full_head_info(),
        network_info(),
        network_info(
            begins_from=StartingNetwork(
                backbone="xception",
                weights={"kind": "random", "seed": 3},
                size_px=96,
                pooling="avg",
                weights_source="random",
            ),
            ended_by="interrupt",
        ),
    ],
)
def test_what_is_written_is_read_back(tmp_path, info):
    write_run_info(tmp_path, info)
    assert read_run_info(tmp_path) == info
    assert type(read_run_info(tmp_path)) is type(info)
    assert [path.name for path in tmp_path.iterdir()] == [RUN_FILE]


def test_settings_come_back_as_what_they_were(tmp_path):
    write_run_info(tmp_path, full_head_info())
    info = read_run_info(tmp_path)
    assert info.settings == HeadSettings.of("logistic")
    assert info.split.settings.hold_out == ("red_hat",)
    assert info.doublings[0].verdict == "more images would help"
    assert info.feature_trials[0].unseen_accuracy is None


def test_heads_and_networks_tell_the_board_the_same_things():
    heads, network = head_info(), network_info()
    assert (heads.head, heads.solver, heads.task) == ("logistic", "lbfgs", "per-attribute")
    assert (network.head, network.solver, network.task) == ("smallervggnet", None, "per-attribute")
    assert heads.calibrate == network.calibrate == "auto"
    assert (heads.costs.epochs, network.costs.epochs) == (None, 3)


def test_a_figure_that_could_not_be_measured_is_null(tmp_path):
    write_run_info(tmp_path, head_info(selection_accuracy={"color": 0.5, "all": float("nan")}))
    content = json.loads((tmp_path / RUN_FILE).read_text())
    assert content["selection_accuracy"] == {"color": 0.5, "all": None}
    assert read_run_info(tmp_path).selection_accuracy["all"] is None


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_other_numbers_are_never_nan(wrong):
    costs = replace(head_info().costs, fit_s=wrong)
    with pytest.raises(ValidationError, match="finite"):
        head_info(costs=costs)


def test_it_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        head_info().digest = "other"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("selection_accuracy.all", "high", "has no valid selection_accuracy.all (got 'high')"),
        ("split.number", DELETED, "has no split.number"),
        ("split.settings.seed", "1", "has no valid split.settings.seed (got '1')"),
        ("costs.model_bytes", 1.5, "has no valid costs.model_bytes (got 1.5)"),
        ("costs.fit_s", None, "has no valid costs.fit_s (got None)"),
        ("costs.epochs", 10**30, f"has no valid costs.epochs (got {10**30})"),
        ("costs.predict_ms_per_image", -1.0, "has no valid costs.predict_ms_per_image (got -1.0)"),
        ("selection_accuracy.color", 1.5, "has no valid selection_accuracy.color (got 1.5)"),
        ("n_train.all", -1, "has no valid n_train.all (got -1)"),
        ("split.name", "../../x", "has no valid split.name (got '../../x')"),
        ("files", {"../x": "0"}, "has no valid files.../x.[key] (got '../x')"),
        ("blocks", [None], "has no valid blocks.0 (got None)"),
        ("features.color", [], "has no features of color"),
        ("attributes", [], "has no valid attributes (got )"),
        ("attributes", ["color", "color"], "has no valid attributes (got color, color)"),
        ("reliability.calibrated", {}, "has reliability.calibrated of other attributes than color"),
        ("versions", [1, 2], "has no valid versions (got [1, 2])"),
        ("blocks", "x" * 99, f"has no valid blocks (got '{'x' * 59}…)"),
        ("mood", "good", "has an unknown field mood"),
        ("settings.depth", 3, "has an unknown field settings.depth"),
        ("settings.head", "tree", "has settings that cannot be used (Unknown head 'tree'."),
        ("split.settings.test_size", 2.0, "has settings that cannot be used (The test size is 2.0"),
        ("n_train.color", DELETED, "has n_train of other attributes than color"),
        ("attributes", ["hue"], "has backbone of other attributes than hue"),
        ("features.color", ["resnet50:rgb"], "has features resnet50:rgb, which are not its blocks"),
        ("kind", "forest", "has no valid kind (got 'forest')"),
        ("kind", DELETED, "has no kind"),
    ],
)
def test_the_wrong_field_is_named(tmp_path, field, value, message):
    folder = tmp_path / "shoes"
    write_run_info(folder, head_info())
    content = json.loads((folder / RUN_FILE).read_text())
    *parents, name = field.split(".")
    holder = content
    for parent in parents:
        holder = holder[parent]
    if value is DELETED:
        del holder[name]
    else:
        holder[name] = value
    (folder / RUN_FILE).write_text(json.dumps(content))
    with pytest.raises(RunError) as caught:
        read_run_info(folder)
    text = str(caught.value)
    assert text.startswith(f"Run 'shoes' is damaged: {folder / RUN_FILE} {message}")
    assert text.endswith(". Fit it again.")


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (None, "has no valid network (got None)"),
        ({}, "has no network.size_px"),
        ({"size_px": "x"}, "has no valid network.size_px (got 'x')"),
        ({"outputs": ["a"]}, "has no valid network.outputs (got ['a'])"),
        ({"outputs": {"a": "x"}}, "has no valid network.outputs.a (got 'x')"),
        ({"outputs": {"a": 2, "b": 2}}, "has other outputs than one for each of color"),
        ({"same": [1]}, "has no network.same.1"),
    ],
)
def test_a_damaged_network_is_to_be_trained_again(tmp_path, network, message):
    write_run_info(tmp_path, network_info())
    content = json.loads((tmp_path / RUN_FILE).read_text())
    content["network"] = content["network"] | network if network else network
    (tmp_path / RUN_FILE).write_text(json.dumps(content))
    with pytest.raises(RunError) as caught:
        read_run_info(tmp_path)
    assert message in str(caught.value)
    assert str(caught.value).endswith(". Train it again.")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, "\xff"])
def test_text_that_cannot_be_parsed_is_a_damaged_run(tmp_path, text):
    (tmp_path / RUN_FILE).write_text(text, encoding="latin-1")
    with pytest.raises(RunError, match=r"run\.json cannot be read \(.*\)\. Delete its folder, and"):
        read_run_info(tmp_path)
    assert read_digest(tmp_path) is None


def test_a_run_json_that_is_no_file_has_no_digest(tmp_path):
    (tmp_path / RUN_FILE).mkdir()
    assert read_digest(tmp_path) is None


def test_the_digest_of_a_damaged_run_is_found(tmp_path):
    assert read_digest(tmp_path) is None
    for content, digest in [
        ("{", None),
        ("[]", None),
        ('{"digest": 3}', None),
        ('{"digest": "abc", "n_train": 0}', "abc"),
    ]:
        (tmp_path / RUN_FILE).write_text(content)
        assert read_digest(tmp_path) == digest
