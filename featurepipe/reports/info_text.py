"""What `featurepipe info` found, as a table of at most 25 lines."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from featurepipe.predictions import ALL
from featurepipe.reports.board_columns import OLD
from featurepipe.reports.info_lines import (
    PARTS,
    Facts,
    Section,
    aligned_rows,
    parts_text,
    versions_text,
)
from featurepipe.reports.run_sections import run_sections
from featurepipe.reports.terminal_text import (
    GAP,
    MIN_WIDTH,
    beginning,
    byte_size,
    count,
    figure,
    listed,
    percent,
    shortened,
)
from featurepipe.words import counted, visible

MAX_LINES = 25

_MAX_NAME = 44
_LABEL_WIDTH = len("calibration") + GAP


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
        "run": run_sections,
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
        ("features", aligned_rows([_store_row(store) for store in facts["stores"]], room)),
        ("pixels", aligned_rows([_store_row(store) for store in facts["pixel_caches"]], room)),
        (
            "splits",
            aligned_rows([[_name(split), parts_text(split)] for split in facts["splits"]], room),
        ),
        ("runs", [*runs, *aligned_rows(_run_rows(facts["runs"]), room)]),
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
        ("versions", [versions_text(made_by["versions"], room)]),
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
        ("resizing", [visible(recipe["resize"])]),
        ("pixels", [visible(part) for part in recipe["preprocessing"].split(" ")]),
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
        for part in PARTS
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
        ("images", aligned_rows(images, room)),
        ("left out", [counted(facts["left_out"], "image")] if facts["left_out"] else []),
        ("held out", [listed(held_out, room)] if held_out else []),
        ("settings", [", ".join(said)]),
        ("findings", [beginning(finding, room) for finding in facts["findings"]]),
        ("made by", ["featurepipe fit or train; the same options use it again"]),
    ]


def _visible(texts: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(visible(name), visible(text)) for name, text in texts.items()]


def _name(facts: Facts) -> str:
    return shortened(visible(facts["name"]), _MAX_NAME)
