"""What `featurepipe info` says about a run."""

from collections.abc import Mapping, Sequence

from featurepipe.predictions import ALL
from featurepipe.reports.info_lines import PARTS, Facts, Section, parts_text, versions_text
from featurepipe.reports.terminal_text import (
    Column,
    aligned,
    byte_size,
    count,
    duration,
    figure,
    fitted,
    listed,
    paragraph,
    percent,
    percent_with_interval,
    table_text,
)
from featurepipe.words import counted, visible

_TASKS = {
    "per-attribute": "one for each attribute",
    "multi-label": "one for all labels",
    "joint": "one for combinations of classes",
}
_SETTINGS = {
    "n_folds": "inner folds",
    "n_epochs": "epochs",
    "n_blocks": "unfrozen blocks",
    "size_px": "size in px",
    "tune": "tuned",
    "augments": "augmented",
}
# A row says it elsewhere.
_SAID_ELSEWHERE = ("head", "network", "task", "calibrate", "own")


def run_sections(facts: Facts, room: int) -> list[Section]:
    """All sections of a run; those without lines are not shown.

    Parameters
    ----------
    facts : mapping of str to Any
        Facts of a run, from `featurepipe.info`.
    room : int
        Characters a line, without the label.
    """
    head, network, n_trials = facts["head"], facts["is_network"], facts["n_feature_trials"]
    images = {part: facts[f"n_{part}"] for part in PARTS}
    return [
        ("network" if network else "head", [f"{head}, {_TASKS[facts['task']]}"]),
        ("parameters", _parameters(facts["settings"], room)),
        ("split", [f"{visible(facts['split'])}: {parts_text(images)}"]),
        ("accuracy", _accuracy_lines(facts, room)),
        ("changed", _changed(facts["changed"], room)),
        ("features", [f"chosen by --features auto in {n_trials} trials"] if n_trials else []),
        ("settings", _settings(facts["settings"], room)),
        ("calibration", [_calibration(facts, room)]),
        ("cost", paragraph(_costs(facts["costs"]), room).split("\n")),
        ("versions", [versions_text(facts["versions"], room)]),
        ("files", [listed(facts["files"], room)]),
        ("made by", paragraph(visible(_command(facts)), room).split("\n")),
        ("next", [f"featurepipe predict IMAGES --run {visible(facts['name'])}"]),
    ]


def _changed(changed: Sequence[str], room: int) -> list[str]:
    return paragraph(visible("; ".join(changed)), room).split("\n") if changed else []


def _parameters(settings: Facts, room: int) -> list[str]:
    """Those of a head of one's own."""
    own = settings.get("own")
    return paragraph(visible(own["parameters"]), room).split("\n") if own else []


def _command(facts: Facts) -> str:
    """The command that makes such a run; options of its split and settings are left out."""
    if facts["is_network"]:
        return f"featurepipe train {facts['head']}"
    reads = {name: "+".join(blocks) for name, blocks in facts["reads"].items()}
    if facts["n_feature_trials"]:
        if facts["n_head_trials"]:
            return "featurepipe fit --features auto"
        features = "auto"
    elif len(set(reads.values())) == 1:
        features = next(iter(reads.values()))
    else:
        features = ",".join(f"{name}={blocks}" for name, blocks in reads.items())
    if facts["settings"].get("own"):
        return f'In Python: featurepipe.fit(head={facts["head"]}(…), features="{features}")'
    return f"featurepipe fit --head {facts['head']} --features {features}"


def _accuracy_lines(facts: Facts, room: int) -> list[str]:
    names = [ALL, *facts["attributes"]]
    columns = [
        Column("", [visible(name) for name in names], is_name=True),
        Column("selection", aligned(percent(facts["selection_accuracy"][name]) for name in names)),
        Column(
            "test (95 % CI)", aligned(_interval(facts["test_accuracy"], name) for name in names)
        ),
    ]
    if facts["unseen_accuracy"]:
        unseen = aligned(_interval(facts["unseen_accuracy"], name) for name in names)
        columns.append(Column("held out (95 % CI)", unseen))
    reads = ["", *("+".join(facts["reads"][name]) for name in facts["attributes"])]
    columns.append(Column("reads", [visible(text) for text in reads], is_name=True))
    return table_text(fitted(columns, room)).split("\n")


def _interval(accuracies: Facts, name: str) -> str:
    measured = accuracies.get(name, {})
    return percent_with_interval(*(measured.get(key) for key in ("accuracy", "low", "high")))


def _settings(settings: Facts, room: int) -> list[str]:
    said = []
    for name, value in settings.items():
        if name in _SAID_ELSEWHERE or value in (None, "", {}, [], ()):
            continue
        words = _SETTINGS.get(name, name.replace("_", " "))
        if isinstance(value, Mapping):
            value = " ".join(f"{key}={item}" for key, item in value.items())
        if isinstance(value, bool):
            said.append(words if value else f"not {words}")
        else:
            said.append(f"{words} {value}")
    return paragraph(visible(", ".join(said)), room).split("\n")


def _calibration(facts: Facts, room: int) -> str:
    method = facts["settings"].get("calibrate", "")
    errors = [
        f"{name} {figure(before)} → {figure(after)}"
        for name, (before, after) in facts["ece"].items()
    ]
    start = f"{method}; calibration error (ECE) "
    return start + listed(errors, max(room - len(start), 12))


def _costs(costs: Facts) -> str:
    said = [f"fit {duration(costs['fit_s'])}"]
    if costs["predict_ms_per_image"] is not None:
        said.append(f"predict {figure(costs['predict_ms_per_image'])} ms/image")
    said.append(f"model {byte_size(costs['model_bytes'])}")
    if costs["n_parameters"] is not None:
        said.append(f"{count(costs['n_parameters'])} parameters")
    if costs["epochs"] is not None:
        said.append(counted(costs["epochs"], "epoch"))
    if costs["peak_memory_bytes"] is not None:
        said.append(f"peak memory {byte_size(costs['peak_memory_bytes'])}")
    return ", ".join(said)
