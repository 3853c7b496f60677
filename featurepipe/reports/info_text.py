"""What `featurepipe info` found, as a table of at most 25 lines."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from featurepipe.predictions import ALL
from featurepipe.reports.board_columns import OLD
from featurepipe.reports.terminal_text import (
    GAP,
    MIN_WIDTH,
    Column,
    aligned,
    beginning,
    byte_size,
    count,
    duration,
    figure,
    fitted,
    listed,
    paragraph,
    percent,
    percent_with_interval,
    shortened,
    table_text,
)
from featurepipe.words import counted, visible

MAX_LINES = 25

_PARTS = ("train", "test", "unseen")
_MAX_NAME = 44
_LABEL_WIDTH = len("calibration") + GAP
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

Facts = Mapping[str, Any]
Section = tuple[str, list[str]]


def info_text(facts: Facts, width: int = 100) -> str:
    """A table of what `featurepipe.info` returns.

    Parameters
    ----------
    facts : mapping of str to Any
        Facts of a workspace, manifest, feature store, pixel cache, split or run.
    width : int
        Characters a line, at least 60.

    Returns
    -------
    str
        At most 25 lines: where there is more, the first few and a count.
    """
    width = max(width, MIN_WIDTH)
    describe: dict[str, Callable[[Facts, int], list[Section]]] = {
        "workspace": _workspace,
        "manifest": _manifest,
        "feature store": _store,
        "pixel cache": _store,
        "split": _split,
        "run": _run,
    }
    what = facts["what"]
    name = facts.get("name", facts["path"])
    title = shortened(visible(f"{what.capitalize()} {name}"), width)
    sections = [section for section in describe[what](facts, width - _LABEL_WIDTH) if section[1]]
    lines = _shown(sections, MAX_LINES - 2)
    return "\n".join([title, "", *(shortened(line, width) for line in lines)])


def _shown(sections: Sequence[Section], n_lines: int) -> list[str]:
    """All sections, the longest cut until everything fits."""
    limit = max(len(lines) for _, lines in sections)
    while sum(min(len(lines), limit) for _, lines in sections) > n_lines and limit > 2:
        limit -= 1
    shown = []
    for label, lines in sections:
        if len(lines) > limit:
            n_more = len(lines) - (limit - 1)
            lines = [*lines[: limit - 1], f"… {n_more:,} more"]
        labels = [label, *[""] * (len(lines) - 1)]
        shown += [
            f"{start:<{_LABEL_WIDTH}}{line}" for start, line in zip(labels, lines, strict=True)
        ]
    return shown


def _workspace(facts: Facts, room: int) -> list[Section]:
    runs = [f"{len(facts['runs']):,}, with selection accuracy and split:"] if facts["runs"] else []
    return [
        *(_images(facts, room) if "images" in facts else []),
        ("features", _lines([_store_row(store) for store in facts["stores"]], room)),
        ("pixels", _lines([_store_row(store) for store in facts["pixel_caches"]], room)),
        ("splits", _lines([[_name(split), _parts(split)] for split in facts["splits"]], room)),
        ("runs", [*runs, *_lines(_run_rows(facts["runs"]), room)]),
        ("damaged", [beginning(message, room) for message in facts["damaged"]]),
        ("next", [_next_of_workspace(facts)]),
    ]


def _store_row(store: Facts) -> list[str]:
    pixels = store["what"] == "pixel cache"
    name = f"{store['recipe']['size_px']} px" if pixels else _name(store)
    return [name, f"{count(store['done'])} of {count(store['images'])} images", _open(store)]


def _open(store: Facts) -> str:
    return ", ".join(f"{store[name]:,} {name}" for name in ("refused", "pending") if store[name])


def _run_rows(runs: Iterable[Facts]) -> list[list[str]]:
    def selection(run: Facts) -> float:
        accuracy = run["selection_accuracy"][ALL]
        return -1.0 if accuracy is None else accuracy

    return [
        [
            _name(run) + (OLD if run["changed"] else ""),
            percent(run["selection_accuracy"][ALL]),
            visible(run["split"]),
        ]
        for run in sorted(runs, key=selection, reverse=True)
    ]


def _next_of_workspace(facts: Facts) -> str:
    stores = facts["stores"]
    if not stores or any(store["pending"] for store in stores):
        return "featurepipe extract"
    if not facts.get("attributes"):
        return "featurepipe fit --labels TABLE.csv"
    return "featurepipe report" if facts["runs"] else "featurepipe fit"


def _manifest(facts: Facts, room: int) -> list[Section]:
    return [
        *_images(facts, room),
        ("findings", [beginning(finding, room) for finding in facts["findings"]]),
        ("made by", ["featurepipe extract"]),
        (
            "next",
            [
                "featurepipe extract"
                if facts["attributes"]
                else "featurepipe fit --labels TABLE.csv"
            ],
        ),
    ]


def _images(facts: Facts, room: int) -> list[Section]:
    attributes = []
    for name, classes in facts["attributes"].items():
        n_unlabelled = facts["images"] - facts["labelled"][name]
        beside = f"; {n_unlabelled:,} unlabelled" if n_unlabelled else ""
        name = shortened(visible(name), _MAX_NAME // 2)
        n_classes = "1 class" if len(classes) == 1 else f"{len(classes):,} classes"
        start = f"{name}, {n_classes}{beside}: "
        labels = [f"{label} {n:,}" for label, n in classes.items()]
        attributes.append(start + listed(labels, max(room - len(start), 12)))
    labels_source = [facts["labels_source"]] if facts["labels_source"] else []
    group = [visible(facts["group"])] if facts["group"] else []
    return [
        ("images", [f"{facts['images']:,} in {visible(facts['root'])}"]),
        ("labels", [visible(source) for source in labels_source]),
        ("attributes", attributes or ["none: the images have no labels"]),
        ("grouped by", group),
    ]


def _store(facts: Facts, room: int) -> list[Section]:
    recipe, made_by = facts["recipe"], facts["made_by"]
    size, speed = recipe["size_px"], facts["images_per_s"]
    rate = f"{figure(speed)} images/s; slowest stage: {facts['bottleneck']}"
    done = f"{facts['done']:,} of {facts['images']:,} done"
    common = [
        ("file", [f"{visible(facts['path'])}, {byte_size(facts['bytes'])}"]),
        ("images", [", ".join(filter(None, [done, _open(facts)]))]),
        ("input", [f"{size} × {size} px, view {recipe['view']}, {recipe['decoding']} decoding"]),
        ("engine", [f"{made_by['engine']} on {made_by['machine']}"]),
        ("versions", [_versions(made_by["versions"], room)]),
        ("speed", [] if speed is None else [rate]),
        ("refused", [f"{id_}: {why}" for id_, why in _visible(facts["refused_images"])]),
        ("verified", [facts["verified"]] if "verified" in facts else []),
    ]
    if facts["what"] == "pixel cache":
        return [
            *common,
            ("made by", ["featurepipe train"]),
            ("next", ["featurepipe train NETWORK"]),
        ]
    pending = f"featurepipe extract, for {counted(facts['pending'], 'pending image')}"
    weights = visible(made_by.get("weights_label", "none"))
    features = (
        f"{facts['n_features']:,} per image, pooling {recipe['pooling']}, {recipe['precision']}"
    )
    return [
        ("backbone", [f"{recipe['backbone']}, weights {weights}"]),
        ("features", [features]),
        *common,
        ("made by", ["featurepipe extract"]),
        (
            "next",
            [pending if facts["pending"] else f"featurepipe fit --backbone {recipe['backbone']}"],
        ),
    ]


def _split(facts: Facts, room: int) -> list[Section]:
    settings, groups = facts["settings"], facts["groups"]
    images = [
        [part, counted(facts[part], "image"), f"in {counted(groups[part], 'group')}"]
        for part in _PARTS
        if facts[part]
    ]
    said = [f"test size {percent(settings['test_size'])}", f"seed {settings['seed']}"]
    if settings["repeats"] > 1:
        said.append(f"repeat {facts['repeat'] + 1} of {settings['repeats']}")
    if settings["group"]:
        said.append(f"grouped by {visible(settings['group'])}")
    if settings["group_duplicates"]:
        said.append("near-duplicates grouped")
    held_out = settings["hold_out"]
    return [
        ("images", _lines(images, room)),
        ("left out", [counted(facts["left_out"], "image")] if facts["left_out"] else []),
        ("held out", [listed(held_out, room)] if held_out else []),
        ("settings", [", ".join(said)]),
        ("findings", [beginning(finding, room) for finding in facts["findings"]]),
        ("made by", ["featurepipe fit or train; the same options use it again"]),
    ]


def _run(facts: Facts, room: int) -> list[Section]:
    head, network, n_trials = facts["head"], facts["is_network"], facts["n_feature_trials"]
    images = {part: facts[f"n_{part}"] for part in _PARTS}
    return [
        ("network" if network else "head", [f"{head}, {_TASKS[facts['task']]}"]),
        ("parameters", _parameters(facts["settings"], room)),
        ("split", [f"{visible(facts['split'])}: {_parts(images)}"]),
        ("accuracy", _accuracy_lines(facts, room)),
        ("changed", _changed(facts["changed"], room)),
        ("features", [f"chosen by --features auto in {n_trials} trials"] if n_trials else []),
        ("settings", _settings(facts["settings"], room)),
        ("calibration", [_calibration(facts, room)]),
        ("cost", paragraph(_costs(facts["costs"]), room).split("\n")),
        ("versions", [_versions(facts["versions"], room)]),
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


def _versions(versions: Mapping[str, str], room: int) -> str:
    return listed([f"{name} {version}" for name, version in versions.items()], room)


def _parts(images: Facts) -> str:
    return ", ".join(f"{images[part]:,} {part}" for part in _PARTS if images[part])


def _visible(texts: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(visible(name), visible(text)) for name, text in texts.items()]


def _name(facts: Facts) -> str:
    return shortened(visible(facts["name"]), _MAX_NAME)


def _lines(rows: Sequence[Sequence[str]], room: int) -> list[str]:
    """Rows of words as lines whose words stand below each other."""
    if not rows:
        return []
    columns = [Column("", list(cells), is_name=True) for cells in zip(*rows, strict=True)]
    return table_text(fitted(columns, room)).split("\n")[1:]
