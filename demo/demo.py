"""The whole job on drawn garments, with the installed command line: `make demo`."""

import contextlib
import csv
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from draw_garments import CATEGORIES, SHADES, draw_folder

from featurepipe.errors import WeightsError
from featurepipe.features.backbones import find_backbone
from featurepipe.features.weights import resolve_weights

BACKBONE = "mobilenet_v2"
# A white garment is the only one that is brighter than its background: grey features of random
# weights do not know its shape from the darker ones. Therefore none of these is white.
ABSENT = ("black", "dress")
HELD_OUT = ("blue_shirt", "red_shoe")
DRAWN = [
    (color, category) for color in SHADES for category in CATEGORIES if (color, category) != ABSENT
]
N_EACH = 24
WORKSPACE = Path("demo-workspace")
PICTURE = "new/black_dress/000.jpg"
COMMAND = Path(sys.executable).with_name("featurepipe")
DOWNLOAD_SECONDS = 20

WHERE = f"""
Everything is in {WORKSPACE}/:
  dataset/, new/          the drawn pictures
  features/, splits/      cached features, and the train/test split
  runs/                   every fitted run: heads, predictions, settings
  leaderboard.csv         the board with all its columns
  report.html             the same as a page
  annotated/              the {" ".join(ABSENT)} with its answers written on it"""


def main() -> None:
    """Draw, extract, fit, report, predict."""
    started = time.perf_counter()
    shutil.rmtree(WORKSPACE, ignore_errors=True)
    draw_folder(WORKSPACE / "dataset", DRAWN, N_EACH, seed=0)
    draw_folder(WORKSPACE / "new", [ABSENT], 1, seed=1)
    print(
        f"Drew {N_EACH * len(DRAWN)} garments in {len(DRAWN)} folders, such as blue_jeans/. There "
        f"is no {'_'.join(ABSENT)}/."
    )
    weights = choose_weights()
    os.chdir(WORKSPACE)
    extract_and_fit(weights)
    show("report")
    show(f"predict {PICTURE} --annotate annotated")
    print(f"\nNo training image shows a {' '.join(ABSENT)}. Answers by features and head:")
    for features in (BACKBONE, "auto"):
        for head in ("bagged-sgd", "logistic"):
            run = next(Path("runs").glob(f"{features}-{head}*")).name
            table = featurepipe(f"predict {PICTURE} --run {run}")
            print(f"  {features:<14}{head:<12}{judge(table.splitlines(), ABSENT)}")
    print(WHERE)
    print(f"\nThe demo took {time.perf_counter() - started:.0f} s.")


def extract_and_fit(weights: str) -> None:
    """Run the commands before the board, and print how long each takes instead of its output."""
    held_out = " ".join(f"--hold-out {name}" for name in HELD_OUT)
    print()
    for arguments in (
        f"extract dataset/ --attributes color,category --backbone {BACKBONE} --view rgb,grey"
        f" --weights {weights}",
        "extract --backbone hsv-histogram",
        f"fit {held_out}",
        "fit --head bagged-sgd --features auto",
        "fit --head logistic",
        "fit --head logistic --features auto",
    ):
        print(f"$ featurepipe {arguments}", end="", flush=True)
        started = time.perf_counter()
        featurepipe(arguments)
        print(f"   ({time.perf_counter() - started:.0f} s)")


def show(arguments: str) -> None:
    """Run a command and print it with its output."""
    print(f"\n$ featurepipe {arguments}", flush=True)
    print(featurepipe(arguments).rstrip("\n"))


def featurepipe(arguments: str) -> str:
    """Run one featurepipe command and return its output; stop if it fails."""
    command = [COMMAND, *shlex.split(arguments), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"\n{done.stdout}{done.stderr}")
        sys.exit(done.returncode)
    return done.stdout


def judge(table: Sequence[str], truth: tuple[str, str]) -> str:
    """What `predict` answered for one image, and whether that is right.

    Parameters
    ----------
    table : sequence of str
        Lines of the CSV that `featurepipe predict` prints.
    truth : tuple of str
        The image's color and category.

    Returns
    -------
    str
        Such as ``black 0.97, shirt 0.61: wrong``.
    """
    rows = {row["attribute"]: row for row in csv.DictReader(table) if row["rank"] == "1"}
    answers = [rows[attribute] for attribute in ("color", "category")]
    said = ", ".join(f"{row['class']} {float(row['probability']):.2f}" for row in answers)
    is_right = tuple(row["class"] for row in answers) == truth
    return f"{said}: {'right' if is_right else 'wrong'}"


def choose_weights() -> str:
    """``imagenet`` if the weights are at hand or can be downloaded quickly, else ``random``."""
    fetched: list[str] = []

    def fetch() -> None:
        with contextlib.suppress(WeightsError):
            resolve_weights("imagenet", find_backbone(BACKBONE))
            fetched.append("imagenet")

    # A thread of its own, since looking up a host that cannot be reached may take a minute.
    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    thread.join(DOWNLOAD_SECONDS)
    if not fetched:
        print(f"ImageNet weights of {BACKBONE} cannot be downloaded here: using random weights.")
    return fetched[0] if fetched else "random"


if __name__ == "__main__":
    main()
