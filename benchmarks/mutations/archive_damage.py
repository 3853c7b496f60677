"""Damage to tar files of images, and to images."""

import io
import random
import sys
import tarfile
from pathlib import Path

from json_damage import bad_value, damage_json_text

sys.path.append(str(Path(__file__).parents[1]))
import fuzz


def damage_image(rng: random.Random, path: Path, donor: Path) -> str:
    """Damage an image as `benchmarks/fuzz.py` does; what was done."""
    before = path.read_bytes()
    other = rng.choice((donor.read_bytes(), *fuzz.drawn_files().values()))
    what = rng.choice(("damage", "damage", "damage", "other format", "many markers"))
    if what == "other format":
        data = fuzz.damage(rng, other, before)
    elif what == "many markers":
        data = before[:2] + rng.choice((b"\xff\xda", b"\xff\xe1\0\x02", b"\0\0\0\0IDAT")) * 99_999
        data += before[2:]
    else:
        data = fuzz.damage(rng, before, other)
    path.write_bytes(data)
    return what


def damage_tar(rng: random.Random, path: Path, donor: Path) -> str:
    """Damage the members of a tar file; what was done."""
    with tarfile.open(path) as archive:
        members = [(info, archive.extractfile(info)) for info in archive if info.isfile()]
        members = [(info, file.read() if file else b"") for info, file in members]
    number = rng.randrange(len(members))
    info, data = members[number]
    what = rng.choice(("header", "header", "header", "twice", "label", "label", "image", "dropped",
                       "gzip", "donor"))  # fmt: skip
    match what:
        case "header":
            what = _change_header(rng, info, members[0][0].name)
        case "twice":
            members.append((info, data))
        case "label":
            labels = [one for one in members if one[0].name.endswith((".json", ".cls"))]
            info, data = rng.choice(labels)
            number = members.index((info, data))
            text = str(bad_value(rng))
            if info.name.endswith(".json"):
                text, what = damage_json_text(rng, data.decode(), data.decode())
            data = text.encode(errors="replace")
        case "image":
            data = fuzz.damage(rng, data, rng.choice(members)[1])
        case "donor":
            with tarfile.open(donor) as archive:
                infos = [one for one in archive if one.isfile()]
                members += [(one, archive.extractfile(one).read()) for one in infos]
    members[number] = (info, data)
    if what == "dropped":
        del members[number]
    _save(path, members, "w:gz" if what == "gzip" else "w")
    return what


def _change_header(rng: random.Random, info: tarfile.TarInfo, other: str) -> str:
    what = rng.choice(("name", "name", "link", "device", "sparse", "records"))
    types = (tarfile.SYMTYPE, tarfile.LNKTYPE)
    match what:
        case "name":
            names = ("../../outside/victim.txt", "/etc/passwd.png", "", "\x1b[2J.png", ".", "..",
                     "x" * 5000 + ".png", "a/../../b.png", other, "ä\udc80.png",
                     "a.b.c.png")  # fmt: skip
            info.name = rng.choice(names)
        case "link":
            targets = ("../../outside/victim.txt", "/dev/zero", info.name, "nowhere")
            info.type, info.linkname = rng.choice(types), rng.choice(targets)
        case "device":
            info.type = rng.choice((tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE))
            info.devmajor, info.devminor = 1, 5
        case "sparse":
            info.pax_headers = {
                "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": info.name,
                "GNU.sparse.realsize": str(2**40),
            }  # fmt: skip
        case "records":
            records = ({"size": "99999999999"}, {"path": "../x"}, {"mtime": "nan"}, {"size": "-1"})
            info.pax_headers = rng.choice(records)
    return what


def _save(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], mode: str) -> None:
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT, errors="surrogateescape") as archive:
        for info, data in members:
            info.size = len(data) if info.isfile() else 0
            archive.addfile(info, io.BytesIO(data))
