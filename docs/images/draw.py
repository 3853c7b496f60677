"""Draw the pictures of README and docs: python docs/images/draw.py.

The figures are those of benchmarks/README.md and of the commands named beside them; nothing is
computed here but the picture of a dress.
"""

import io
import sys
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parents[1] / "demo"))
from draw_garments import draw_garment  # noqa: E402

# benchmarks/README.md, unseen combinations: both attributes right, in 432 test images and as the
# mean over five combinations held out in turn. Networks were trained for 20 epochs.
ACCURACIES = {
    "heads on ordinary features": (0.965, 0.091),
    "SmallerVGGNet, 20 epochs": (0.947, 0.014),
    "FashionNet, 20 epochs": (0.942, 0.714),
    "--features auto": (0.988, 0.938),
}
# predict of this picture after `extract --backbone mobilenet_v2 --view rgb,grey` and `extract
# --backbone hsv-histogram` of 260 pictures of 13 combinations drawn as in demo/demo.py.
ANSWERS = {
    "heads on ordinary features": "blue (0.75) dress (0.97)",
    "--features auto": "black (0.97) dress (0.98)",
}
# Okabe & Ito (2008), Color universal design.
SEEN, UNSEEN, WRONG, RIGHT = "#9ec9e2", "#0072b2", "#d55e00", "#009e73"


def main() -> None:
    """Draw unseen.png."""
    figure = Figure((9.6, 3.7), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2, width_ratios=(1, 2.1))
    _draw_dress(left)
    _draw_accuracies(right)
    file = io.BytesIO()
    figure.savefig(file, dpi=100)
    # 256 colours are enough here, and take a third of the room.
    Image.open(file).convert("RGB").quantize(256).save(FOLDER / "unseen.png", optimize=True)


def _draw_dress(axes: Axes) -> None:
    axes.imshow(np.asarray(draw_garment("dress", "black", np.random.default_rng([1, 2]))))
    axes.set_axis_off()
    axes.set_title("A drawn black dress;\nin training there was none", fontsize=10, loc="left")
    for line, (features, answer) in enumerate(ANSWERS.items()):
        color = WRONG if answer.startswith("blue") else RIGHT
        at = {"transform": axes.transAxes, "va": "top"}
        axes.text(0, -0.03 - 0.17 * line, features, fontsize=8, color="0.35", **at)
        axes.text(0, -0.1 - 0.17 * line, answer, fontsize=10, weight="bold", color=color, **at)


def _draw_accuracies(axes: Axes) -> None:
    rows = np.arange(len(ACCURACIES))[::-1]
    for shift, which, color, label in (
        (0.19, 0, SEEN, "test images"),
        (-0.19, 1, UNSEEN, "combinations that training never saw"),
    ):
        shares = [100 * pair[which] for pair in ACCURACIES.values()]
        bars = axes.barh(rows + shift, shares, 0.36, color=color, label=label)
        axes.bar_label(bars, [f"{share:.1f} %" for share in shares], padding=3, fontsize=8.5)
    axes.set_yticks(rows, list(ACCURACIES), fontsize=9)
    axes.set_xlim(0, 114)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.set_title(
        "2,160 photographs of garments: color and category both right", fontsize=10, loc="left"
    )
    axes.legend(
        loc="upper left", bbox_to_anchor=(0, -0.02), ncols=2, frameon=False, fontsize=9,
        borderaxespad=0,
    )  # fmt: skip


if __name__ == "__main__":
    main()
