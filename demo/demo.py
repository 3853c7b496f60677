"""The main job from end to end on drawn garments, with the installed command line."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from draw_garments import draw_folder

from featurepipe.errors import WeightsError
from featurepipe.features.backbones import find_backbone
from featurepipe.features.weights import resolve_weights

BACKBONES = ("xception", "inception_v3", "resnet50")
CATEGORIES = ("dress", "jeans", "shirt", "shoe")
LEFT_OUT = [("black", "dress"), ("white", "jeans"), ("red", "shoe")]
TRAINED = [
    (color, category)
    for color in ("black", "blue", "red", "white")
    for category in CATEGORIES
    if (color, category) not in LEFT_OUT
]
WORKSPACE = Path("demo-workspace")


def main() -> None:
    """Draw, extract, fit, report, predict."""
    shutil.rmtree(WORKSPACE, ignore_errors=True)
    draw_folder(WORKSPACE / "dataset", TRAINED, n_each=20, seed=0)
    draw_folder(WORKSPACE / "new", [("blue", "shirt"), ("red", "dress"), *LEFT_OUT], 1, seed=1)
    print(
        f"Drew {20 * len(TRAINED)} pictures of {len(TRAINED)} combinations; never drawn for "
        f"training: {', '.join(map('_'.join, LEFT_OUT))}."
    )
    weights = _weights_at_hand()
    os.chdir(WORKSPACE)
    backbones = ",".join(BACKBONES)
    featurepipe(
        f"extract dataset/ --attributes color,category --backbone {backbones} --weights {weights}"
    )
    featurepipe("fit --head bagged-sgd")
    featurepipe("fit --head bagged-sgd --task multi-label")
    featurepipe("fit --head logistic")
    featurepipe("report")
    featurepipe("predict new/ --top 2")


def featurepipe(arguments: str) -> None:
    """Show and run one featurepipe command; stop if it fails."""
    print(f"\n$ featurepipe {arguments}", flush=True)
    command = Path(sys.executable).with_name("featurepipe")
    code = subprocess.run([command, *shlex.split(arguments)], check=False).returncode
    if code:
        sys.exit(code)


def _weights_at_hand() -> str:
    try:
        for backbone in BACKBONES:
            resolve_weights("imagenet", find_backbone(backbone))
    except WeightsError:
        print("ImageNet weights cannot be downloaded here: running with seeded random weights.")
        return "random"
    return "imagenet"


if __name__ == "__main__":
    main()
