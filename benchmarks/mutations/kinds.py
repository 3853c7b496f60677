"""The kinds of file, how the structure of each is damaged, and which commands read it."""

import random
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from archive_damage import damage_image, damage_tar
from byte_damage import damage_bytes, replace_file
from child import Limits, watch
from drawn import NETWORK, TRAIN, UNFINISHED, WORKSPACE
from hdf5_damage import damage_hdf5
from json_damage import damage_json
from place import Place
from table_damage import damage_csv, damage_parquet
from zip_damage import damage_zip

Command = tuple[str, ...]
Damage = Callable[[random.Random, Path, Path], str]

_DAMAGE_LIMITS = Limits(cpu_s=5, wall_s=20, memory_bytes=1_000_000_000)

HSV = "workspace/features/hsv_histogram-none-128-avg-rgb.h5"


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes
    ----------
    files : tuple of str
        Patterns, from the place.
    commands : tuple of (tuple of str)
        Commands that read such a file. ``{file}`` is the mutated file, ``{run}`` the name of the
        folder that it lies in.
    damage : callable or None
        Damages its structure; None: the bytes alone are damaged.
    share : float
        How often it comes up, relative to the others.
    is_slow : bool
        Whether its commands load networks and have more time.
    """

    files: tuple[str, ...]
    commands: tuple[Command, ...]
    damage: Damage | None = None
    share: float = 1
    is_slow: bool = False


_LOOK: tuple[Command, ...] = (
    ("info", "workspace", *WORKSPACE),
    ("info", "workspace", "--verify", *WORKSPACE),
    ("report", "--full", *WORKSPACE),
)
_PREDICT: Command = ("predict", "images/red_plain", *WORKSPACE)
_EXTRACT: Command = ("extract", "--backbone=hsv-histogram", *WORKSPACE)
_SPLIT = ("--test-size=0.25", "--jobs=1", *WORKSPACE)
_FIT: Command = ("fit", "--backbone=hsv-histogram", "--head=knn", *_SPLIT)
_REPEAT: Command = ("repeat", "hsv_histogram-knn", *WORKSPACE)
_AUDIT: Command = ("audit", *WORKSPACE)
_RUN: tuple[Command, ...] = (
    ("info", "workspace/runs/{run}", "--verify", *WORKSPACE),
    ("info", "workspace/runs/{run}", "--json", *WORKSPACE),
    (*_PREDICT, "--run={run}", "--top=2"),
    ("audit", "--run={run}", *WORKSPACE),
    ("repeat", "{run}", *WORKSPACE),
)
_SAME: Command = ("same", "images/red_plain/00.webp", "images/red_plain/01.gif", *WORKSPACE)
_GREY: Command = ("extract", *NETWORK, "--weights=random", "--view=grey", *WORKSPACE)
_OWN: Command = ("extract", *NETWORK, "--weights={file}", "--workspace=workspace")
_ZIPPED = "workspace/runs/*-*/"


def _hdf5(rng: random.Random, path: Path, donor: Path) -> str:
    return damage_hdf5(rng, path, _place(path) / "outside")


def _zip(rng: random.Random, path: Path, donor: Path) -> str:
    return damage_zip(rng, path, donor, _place(path).parent / "canary")


def _weights(rng: random.Random, path: Path, donor: Path) -> str:
    return _zip(rng, path, path) if path.suffix == ".keras" else _hdf5(rng, path, donor)


def _place(path: Path) -> Path:
    return next(parent for parent in path.parents if parent.name == "place")


KINDS: dict[str, Kind] = {
    "manifest": Kind(
        ("workspace/manifest.parquet",),
        (("info", "{file}"), *_LOOK, _FIT, _EXTRACT, _PREDICT, _AUDIT,
         ("export", HSV, "written/a.csv", "--labels", *WORKSPACE)),
        damage_parquet,
    ),
    "network store": Kind(
        ("workspace/features/mobilenet*.h5",),
        (("info", "{file}"), ("info", "{file}", "--verify"), *_LOOK,
         ("export", "{file}", "written/a.parquet", "--labels", *WORKSPACE),
         ("fit", "--backbone=mobilenet_v2", "--head=knn", *_SPLIT),
         ("extract", *NETWORK, "--weights=random", *WORKSPACE),
         ("audit", "--run=mobilenet_v2-knn", *WORKSPACE)),
        _hdf5,
    ),
    "descriptor store": Kind(
        (HSV,),
        (("info", "{file}"), ("info", "{file}", "--verify"), *_LOOK, _EXTRACT, _FIT, _AUDIT,
         _REPEAT, ("export", "{file}", "written/a.npz", "--labels", *WORKSPACE),
         ("extract", "--backbone=hsv-histogram", "--rehash", *WORKSPACE),
         ("fit", "--backbone=hsv-histogram", "--head=knn", "--allow-partial", *_SPLIT),
         ("fit", "--backbone=hsv-histogram", "--memory=1MB", "--head=bagged-sgd", *_SPLIT)),
        _hdf5, share=1.5,
    ),
    "pixel cache": Kind(
        ("workspace/pixels/16.h5",),
        (("info", "{file}"), ("info", "{file}", "--verify"), *_LOOK[:2], (*TRAIN, "--epochs=1"),
         (*TRAIN, "--epochs=1", "--seed=3")),
        _hdf5, share=0.5, is_slow=True,
    ),
    "split": Kind(
        ("workspace/splits/*.json",),
        (("info", "{file}"), *_LOOK, _FIT, _AUDIT, _PREDICT, _REPEAT,
         ("fit", "--backbone=hsv-histogram", "--head=knn", "--jobs=1", *WORKSPACE)),
        damage_json,
    ),
    "near-duplicates": Kind(
        ("workspace/splits/*.csv",), (*_LOOK, _FIT, _REPEAT, _AUDIT), damage_csv, share=0.25
    ),
    "found near-duplicates": Kind(
        ("workspace/features/*-near-duplicates.npz",),
        (*_LOOK[:2], ("fit", "--backbone=mobilenet_v2", "--head=knn", *_SPLIT),
         ("fit", "--backbone=mobilenet_v2", "--head=knn", "--group-duplicates", *_SPLIT), _AUDIT),
        _zip, share=0.5, is_slow=True,
    ),
    "run.json": Kind(
        ("workspace/runs/*/run.json",),
        (*_LOOK, *_RUN, ("info", "{file}"), _PREDICT, _FIT, _AUDIT, _SAME), damage_json, share=1.5,
    ),
    "predictions": Kind(
        (_ZIPPED + "predictions.npz",), (*_LOOK, *_RUN, _PREDICT, _FIT), _zip
    ),
    "selection": Kind((_ZIPPED + "selection.npz",), (*_LOOK, *_RUN, _PREDICT, _FIT), _zip),
    "heads": Kind((_ZIPPED + "heads.skops",), (*_LOOK[1:], *_RUN, _PREDICT), _zip, share=1.5),
    "inputs": Kind(
        (_ZIPPED + "inputs.csv",), (*_LOOK, *_RUN, _REPEAT, _REPEAT), damage_csv, share=0.5
    ),
    "history": Kind(
        ("workspace/runs/*/history.csv",), (*_LOOK, *_RUN), damage_csv, share=0.25, is_slow=True
    ),
    "network": Kind(
        ("workspace/runs/*/network.keras",),
        (*_RUN[:3], (*_PREDICT, "--run={run}"), _SAME, (*TRAIN, "--epochs=1")),
        _zip, share=0.7, is_slow=True,
    ),
    "checkpoint": Kind(
        ("workspace/runs/.training-*/*.npz",), (UNFINISHED, UNFINISHED, *_LOOK),
        _zip, share=0.5, is_slow=True,
    ),
    "board and audit": Kind(
        ("workspace/leaderboard.csv", "workspace/audit.csv"), (*_LOOK, _AUDIT, ("info", "{file}")),
        damage_csv, share=0.25,
    ),
    "label table": Kind(
        ("labels.csv", "labels.parquet"),
        ((*_FIT, "--labels={file}", "--attributes=color"), (*_FIT, "--labels={file}"),
         (*_FIT, "--labels={file}", "--group=patient"),
         ("extract", "images", "--labels={file}", "--backbone=hsv-histogram", *WORKSPACE),
         ("extract", "{file}", "--backbone=hsv-histogram", "--workspace=written/new")),
        lambda rng, path, donor: (
            damage_parquet(rng, path, path) if path.suffix == ".parquet"
            else damage_csv(rng, path, path)
        ),
    ),
    "weights": Kind(
        ("some.weights.h5", "whole.h5", "whole.keras"),
        ((*_OWN, "--engine=keras"), _OWN, _OWN), _weights, share=0.7, is_slow=True,
    ),
    "image": Kind(
        ("images/*/*.*",),
        (_EXTRACT, ("predict", "{file}", "--annotate=written/out", *WORKSPACE),
         ("predict", "images", "--run=hsv_histogram-knn", "--unrelated", *WORKSPACE),
         ("info", HSV, "--verify", *WORKSPACE), ("extract", "images", "--backbone=hsv-histogram",
                                                "--strict", "--workspace=written/new")),
        damage_image,
    ),
    "archive": Kind(
        ("archive.tar", "other.tar"),
        (("extract", "{file}", "--backbone=hsv-histogram", "--workspace=archives"),
         ("extract", "{file}", "--backbone=hsv-histogram", "--workspace=written/new"),
         ("info", "archives", "--verify")),
        damage_tar,
    ),
    "graph": Kind(
        ("cache/graphs/*",), (_GREY, (*_PREDICT, "--run=mobilenet_v2-knn")), share=0.4, is_slow=True
    ),
    "verdict": Kind(("cache/precision/*",), (_GREY,), damage_json, share=0.25, is_slow=True),
}  # fmt: skip


def mutate(rng: random.Random, place: Place, kind: Kind) -> tuple[Path, str]:
    """Damage one file of a kind; the file, and what was done."""
    files = sorted(path for pattern in kind.files for path in place.folder.glob(pattern))
    path, donor = rng.choice(files), rng.choice(files)
    chance = rng.random()
    if chance < 0.1:
        return path, replace_file(rng, path, place.folder / "outside")
    if chance < 0.4 or kind.damage is None:
        return path, damage_bytes(rng, path, donor)
    kept = place.logs / "kept"
    shutil.copyfile(path, kept)
    assert kind.damage is not None
    damage = partial(_tell, kind.damage, random.Random(rng.random()), path, donor)
    # In a child, since the libraries that write a format may hang or crash on what is damaged.
    made = watch(damage, place.logs, _DAMAGE_LIMITS)
    if made.code == 0:
        return path, made.out.strip()
    if made.code > 0:
        print(f"The damage of {path.name} failed: {made.last_line}", file=sys.stderr)
    shutil.copyfile(kept, path)
    return path, damage_bytes(rng, path, donor)


def _tell(damage: Damage, rng: random.Random, path: Path, donor: Path) -> int:
    print(ascii(damage(rng, path, donor))[1:-1])
    return 0


def command_for(rng: random.Random, place: Place, kind: Kind, path: Path) -> Command:
    """One of the commands that read the file."""
    names = {"file": path.relative_to(place.folder).as_posix(), "run": path.parent.name}
    return tuple(word.format(**names) for word in rng.choice(kind.commands))
