"""Measure which copies are found as near-duplicates, and how many pairs of originals.

    python benchmarks/duplicates.py FOLDER… --weights-folder DIR [--work DIR] [--n-copied 300]

Some images of each folder are copied in five ways: compressed again (JPEG of quality 70),
resized to 80 %, cropped by 2.5 % at the left and the top, brightened by 10 %, and mirrored.
A copy is found if it is paired with its original among all originals and all copies of the
same kind.
"""

import argparse
import random
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageEnhance, ImageOps

import featurepipe
from featurepipe.features.store import FeatureStore
from featurepipe.models.answers.row_chunks import RowChunks
from featurepipe.models.studies.duplicate_rows import near_duplicates
from featurepipe.workspace import Workspace

BACKBONES = ("mobilenet_v2", "resnet50")
ORIGINAL = "original"


def resized(picture: Image.Image) -> Image.Image:
    """Resize to 80 % of the width and height."""
    return picture.resize((round(0.8 * picture.width), round(0.8 * picture.height)))


def cropped(picture: Image.Image) -> Image.Image:
    """Cut 2.5 % of the width and height off, at the left and the top."""
    left, top = round(0.025 * picture.width), round(0.025 * picture.height)
    return picture.crop((left, top, picture.width, picture.height))


def brightened(picture: Image.Image) -> Image.Image:
    """Make it brighter by 10 %."""
    return ImageEnhance.Brightness(picture).enhance(1.1)


# How each kind of copy is made, and the quality of its JPEG.
KINDS = {
    "compressed": (lambda picture: picture, 70),
    "resized": (resized, 95),
    "cropped": (cropped, 95),
    "brightened": (brightened, 95),
    "mirrored": (ImageOps.mirror, 95),
}


def main() -> None:
    """Measure, and print one row per folder and backbone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="folders of images")
    parser.add_argument(
        "--weights-folder", type=Path, required=True, help="has a file BACKBONE_notop.h5 for each"
    )
    parser.add_argument("--work", type=Path, help="keep copies and features in this folder")
    parser.add_argument(
        "--n-copied", type=int, default=300, help="images to copy; default: %(default)s"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        rows = []
        for folder in arguments.folders:
            workspace = Workspace(work / folder.name)
            make_copies(folder, workspace.root / "images", arguments.n_copied)
            for backbone in BACKBONES:
                featurepipe.extract(
                    workspace.root / "images",
                    workspace=workspace.root,
                    backbone=backbone,
                    weights=str(arguments.weights_folder / f"{backbone}_notop.h5"),
                )
                (store,) = (path for path in workspace.stores() if path.stem.startswith(backbone))
                rows.append({"folder": folder.name, "backbone": backbone, **measure(store)})
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3f}".format))


def make_copies(folder: Path, images: Path, n_copied: int) -> None:
    """Link all images of a folder, and copy some of them in each way."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".jpeg", ".png"))
    for path in files:
        link = images / ORIGINAL / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(path.resolve())
    for path in random.Random(0).sample(files, n_copied):
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        for kind, (change, quality) in KINDS.items():
            copy = images / kind / f"{path.relative_to(folder)}.jpg"
            copy.parent.mkdir(parents=True, exist_ok=True)
            change(picture).save(copy, quality=quality)


def measure(store_path: Path) -> dict[str, float]:
    """Share of the copies of each kind that are found, and pairs among distinct originals."""
    with FeatureStore.open(store_path) as store:
        done = store.rows("done")
        X, ids, digests = store.features(done), store.ids[done], store.digests[done]
    kinds = np.array([image_id.split("/")[0] for image_id in ids])
    names = np.array([image_id.split("/", 1)[1] for image_id in ids])
    originals = np.flatnonzero(kinds == ORIGINAL)
    _, firsts, of_digest = np.unique(
        digests[originals], axis=0, return_index=True, return_inverse=True
    )
    position = dict(zip(names[originals], of_digest.reshape(-1), strict=True))
    distinct = X[originals[firsts]]
    started = time.perf_counter()
    pairs, _ = near_duplicates(RowChunks.in_memory(distinct))
    figures = {"distinct originals": len(distinct), "seconds": time.perf_counter() - started}
    for kind in KINDS:
        copies = np.flatnonzero(kinds == kind)
        paired = near_duplicates(RowChunks.in_memory(np.concatenate([distinct, X[copies]])))[0]
        wanted = [
            (position[name.removesuffix(".jpg")], len(distinct) + number)
            for number, name in enumerate(names[copies])
        ]
        figures[kind] = len(set(map(tuple, paired)) & set(wanted)) / len(wanted)
    return figures | {"pairs of originals": len(pairs)}


if __name__ == "__main__":
    main()
