"""Draw the picture of the README from the workspace of the demo.

    make demo
    .venv/bin/python demo/draw_figure.py docs/images/black-dress.png

Left is the black dress with the answers of the best run. Right is the accuracy of ordinary
features and of `--features auto`, both with the head `HEAD`, on test images and on the
combinations that were held out. Every number comes from that workspace.
"""

import sys
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from PIL import Image

import featurepipe
from demo import ABSENT, BACKBONE, PICTURE, WORKSPACE

HEAD = "logistic"
WIDTH_PX, HEIGHT_PX, DPI = 1200, 480, 200
N_COLORS = 24
"""Enough for two hues and a grey picture; more colours only make the file larger."""
INK, PALE, GREEN, RED, GREY = "#2b2f33", "#6b7278", "#2a7f62", "#b03a2e", "#a9b0b6"


def main() -> None:
    """Draw the figure and save it as a PNG."""
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    matplotlib.rcParams.update({"font.size": 8, "text.color": INK})
    figure = plt.figure(figsize=(WIDTH_PX / DPI, HEIGHT_PX / DPI), dpi=DPI)
    draw_picture(figure.add_axes((0.02, 0.2, 0.3, 0.66)))
    draw_accuracies(figure.add_axes((0.52, 0.03, 0.4, 0.83)), read_board())
    figure.savefig(target, facecolor="white")
    picture = Image.open(target).convert("RGB")
    picture.quantize(N_COLORS, dither=Image.Dither.NONE).save(target, optimize=True)


def draw_picture(axes: Axes) -> None:
    """Draw the picture of the combination that was never trained, and the best run's answers."""
    answers = featurepipe.predict([WORKSPACE / PICTURE], workspace=WORKSPACE)
    said = zip(answers["class"], answers["probability"], strict=True)
    axes.imshow(Image.open(WORKSPACE / PICTURE))
    axes.set_axis_off()
    axes.set_title(f"never trained: a {' '.join(ABSENT)}", fontsize=8.5)
    words = ",  ".join(f"{name} {probability:.2f}" for name, probability in said)
    is_right = tuple(answers["class"]) == ABSENT
    axes.text(0.5, -0.06, words, transform=axes.transAxes, ha="center", va="top",
              fontsize=9.5, fontweight="bold", color=GREEN if is_right else RED)  # fmt: skip


def read_board() -> pd.DataFrame:
    """Accuracies of the two runs over all attributes, with their intervals."""
    board = pd.read_csv(WORKSPACE / "leaderboard.csv")
    board = board[board["attribute"] == "all"].set_index("run")
    names = {
        title: next(name for name in board.index if name.startswith(f"{features}-{HEAD}"))
        for title, features in (("ordinary features", BACKBONE), ("--features auto", "auto"))
    }
    return board.loc[list(names.values())].assign(title=list(names))


def draw_accuracies(axes: Axes, board: pd.DataFrame) -> None:
    """Draw a bar with its 95 % interval for each run, in two groups of images."""
    groups = (
        (f"{board['n_test'].iloc[0]:.0f} test images", "accuracy"),
        (f"{board['n_unseen'].iloc[0]:.0f} images of combinations never trained",
         "unseen_accuracy"),
    )  # fmt: skip
    for number, (title, column) in enumerate(groups):
        top = 3.3 * number
        axes.text(-0.44, top - 0.85, title, fontsize=8.5, fontweight="bold", va="center")
        for position, (_, run) in enumerate(board.iterrows()):
            y = top + position
            low, high = run[f"{column}_low"], run[f"{column}_high"]
            color = GREEN if run["title"] == "--features auto" else GREY
            axes.barh(y, run[column], height=0.7, color=color)
            axes.plot([low, high], [y, y], color=INK, linewidth=1, solid_capstyle="butt")
            axes.text(-0.02, y, run["title"], ha="right", va="center")
            axes.text(1.03, y, f"{run[column]:.0%}", va="center", fontweight="bold")
    weights = board["weights"].iloc[0]
    note = f"color and category right, 95 % intervals; {BACKBONE}, {weights} weights"
    axes.text(-0.44, 5.1, note, fontsize=7, color=PALE, va="center")
    axes.set_xlim(0, 1)
    axes.set_ylim(5.3, -1.2)
    axes.set_axis_off()


if __name__ == "__main__":
    main()
