"""Draw the pictures of README and docs from the workspace of the demo: `make pictures`.

Every number comes from that workspace. The picture of the report needs Chromium.
"""

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from draw_garments import draw_folder
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

import featurepipe
from demo import ABSENT, BACKBONE, PICTURE, WORKSPACE

HEAD = "logistic"
ORDINARY, AUTO = "ordinary features", "--features auto"
# Okabe & Ito (2008), Color universal design.
SEEN, UNSEEN, WRONG, RIGHT = "#9ec9e2", "#0072b2", "#c04a00", "#007a55"


def main() -> None:
    """Draw all pictures into a folder."""
    folder = Path(sys.argv[1])
    draw_unseen(folder / "unseen.png")
    featurepipe.info(WORKSPACE, plot=folder / "data.png")
    save_small(Image.open(folder / "data.png"), folder / "data.png")
    draw_answers_of_new(folder)
    photograph_report(folder / "report.png")


def draw_answers_of_new(folder: Path) -> None:
    """Draw what is answered about new pictures, and which places and images speak for it.

    Parameters
    ----------
    folder : Path
    """
    new = sorted(draw_new(WORKSPACE / "new").rglob("*.jpg"))
    run = next(name for name in read_board().index if name.startswith("auto"))
    at = {"workspace": WORKSPACE}
    featurepipe.predict(new, run=run, contact_sheet=folder / "predictions.jpg", **at)
    featurepipe.similar([WORKSPACE / PICTURE], n=4, contact_sheet=folder / "similar.jpg", **at)
    with tempfile.TemporaryDirectory() as evidence:
        featurepipe.predict([WORKSPACE / PICTURE], run=run, explain=Path(evidence) / "maps", **at)
        (picture,) = Path(evidence).rglob("*.jpg")
        shutil.copyfile(picture, folder / "evidence.jpg")


def draw_new(folder: Path) -> Path:
    """Draw pictures that are in no folder of the demo, some of combinations it never trains.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    Path
        Where they are.
    """
    kinds = [ABSENT, ("red", "shirt"), ("blue", "jeans"), ("black", "shoe"), ("red", "dress")]
    draw_folder(folder / "docs", kinds, 1, seed=2)
    return folder / "docs"


def photograph_report(path: Path) -> None:
    """Photograph the top of report.html; stop without Chromium.

    Parameters
    ----------
    path : Path
        PNG to write.
    """
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("Chromium, which photographs report.html, is not installed.")
    options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1300,1560"]
    html = (WORKSPACE / "report.html").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        # Where this machine keeps the workspace is nobody's business.
        page.write_text(html.replace(f"{WORKSPACE.resolve()}/", ""), encoding="utf-8")
        subprocess.run(
            [chromium, *options, f"--screenshot={path}", page.as_uri()],
            check=True,
            capture_output=True,
        )
    save_small(Image.open(path), path)


def save_small(picture: Image.Image, path: Path) -> None:
    """Save a PNG of 256 colours, which take a third of the room.

    Parameters
    ----------
    picture : PIL.Image.Image
    path : Path
    """
    picture.convert("RGB").quantize(256).save(path, optimize=True)


def draw_unseen(path: Path) -> None:
    """The picture of the README: ordinary features and `--features auto` on what was not trained.

    Parameters
    ----------
    path : Path
        PNG to write.
    """
    board = read_board()
    figure = Figure((9.6, 3.7), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2, width_ratios=(1, 2.6))
    draw_answers(left, board)
    draw_accuracies(right, board)
    file = io.BytesIO()
    figure.savefig(file, dpi=100)
    save_small(Image.open(file), path)


def read_board() -> pd.DataFrame:
    """Figures of two runs over all attributes, by the features that they read."""
    board = pd.read_csv(WORKSPACE / "leaderboard.csv")
    board = board[board["attribute"] == "all"]
    names = {
        features: next(name for name in board["run"] if name.startswith(f"{start}-{HEAD}"))
        for features, start in ((ORDINARY, BACKBONE), (AUTO, "auto"))
    }
    return board.set_index("run").loc[list(names.values())].assign(features=list(names))


def draw_answers(axes: Axes, board: pd.DataFrame) -> None:
    """Draw the combination that was never trained, and what both runs answer."""
    axes.imshow(np.asarray(Image.open(WORKSPACE / PICTURE)))
    axes.set_axis_off()
    axes.set_title(f"In training there was no {' '.join(ABSENT)}", fontsize=10, loc="left")
    for line, (run, features) in enumerate(board["features"].items()):
        answers = featurepipe.predict([WORKSPACE / PICTURE], run=str(run), workspace=WORKSPACE)
        said = zip(answers["class"], answers["probability"], strict=True)
        words = "  ".join(f"{name} ({probability:.2f})" for name, probability in said)
        color = RIGHT if tuple(answers["class"]) == ABSENT else WRONG
        at = {"transform": axes.transAxes, "va": "top"}
        axes.text(0, -0.03 - 0.17 * line, features, fontsize=8, color="0.35", **at)
        axes.text(0, -0.1 - 0.17 * line, words, fontsize=10, weight="bold", color=color, **at)


def draw_accuracies(axes: Axes, board: pd.DataFrame) -> None:
    """Draw two bars with their 95 % intervals for each run."""
    rows = np.arange(len(board))[::-1]
    parts = (
        ("accuracy", SEEN, f"{board['n_test'].iloc[0]:.0f} test images"),
        (
            "unseen_accuracy",
            UNSEEN,
            f"{board['n_unseen'].iloc[0]:.0f} images of two combinations that were held out",
        ),
    )
    for shift, (column, color, label) in zip((0.19, -0.19), parts, strict=True):
        shares = 100 * board[column].to_numpy()
        ends = 100 * board[[f"{column}_low", f"{column}_high"]].to_numpy().T
        axes.barh(rows + shift, shares, 0.36, color=color, label=label)
        axes.hlines(rows + shift, *ends, color="0.2", linewidth=1.2)
        for y, share in zip(rows + shift, shares, strict=True):
            axes.text(103, y, f"{share:.0f} %", va="center", fontsize=9)
    axes.set_yticks(rows, board["features"], fontsize=9)
    axes.set_xlim(0, 112)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.set_title(
        "Drawn garments: color and category both right, with 95 % intervals",
        fontsize=10,
        loc="left",
    )
    axes.legend(
        loc="upper left", bbox_to_anchor=(0, -0.02), ncols=2, frameon=False, fontsize=9,
        borderaxespad=0,
    )  # fmt: skip


if __name__ == "__main__":
    main()
