"""Names that would act on a terminal, in every command that shows them."""

import io
import json
import os
import re
import subprocess
import sys

import pandas as pd
import pytest

from command_line import fail, succeed
from featurepipe.cli import run
from pictures import draw

pty = pytest.importorskip("pty")

# It sets a title, clears the screen, turns the writing and ends the line.
HOSTILE = "\x1b]0;t\x07\x1b[2J\x9b2J\u202e\n"
SHOWN = "\\u001b]0;t\\u0007\\u001b[2J\\u009b2J\\u202e\\n"
DATA, WORK, BROKEN = f"data{HOSTILE}", f"--workspace=work{HOSTILE}", f"broken{HOSTILE}.png"
COLOUR = f"color{HOSTILE.strip()}"
EXTRACT = ["extract", DATA, "--backbone=hsv-histogram", f"--attributes={COLOUR},kind", WORK]
RUN_EACH = """
import ast, sys
from featurepipe.cli import run
print([run(arguments) for arguments in ast.literal_eval(sys.argv[1])])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A dataset and a workspace with a run, all of such names."""
    folder = tmp_path_factory.mktemp("escapes")
    for number, colour in enumerate(("black", "red")):
        for kind in ("bright", "plain"):
            place = folder / DATA / f"{colour}{HOSTILE}_{kind}"
            for index in range(8):
                image = place / f"{index}{HOSTILE}.png"
                draw(image, colour, kind == "bright", 100 * number + index)
    (place / BROKEN).write_bytes(b"broken")
    (place / "copy.png").write_bytes(
        (place.parent / f"black{HOSTILE}_plain" / image.name).read_bytes()
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run([*EXTRACT, "--quiet"]) == 0
        assert run(["fit", "--head=knn", WORK, "--quiet"]) == 0
    return folder


@pytest.fixture(autouse=True)
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)


def on_terminal(*commands):
    """Exit codes of commands on a terminal, and all that reached it but its own styles."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-c", RUN_EACH, ascii(commands)]
    process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    received = b""
    # Linux ends the output of a terminal that nobody writes to with an error.
    try:
        while part := os.read(leader, 2**16):
            received += part
    except OSError:
        pass
    os.close(leader)
    process.wait()
    text = re.sub(r"\x1b\[[0-9;]*m", "", received.decode())
    *_, codes = text.rstrip().rpartition("\r\n")
    return json.loads(codes), text.replace("\r\n", "\n").replace("\r", "\n")


def test_no_command_lets_a_name_act_on_the_terminal():
    images = f"{DATA}/red{HOSTILE}_plain"
    store = f"work{HOSTILE}/features/hsv_histogram-none-128-avg-rgb.h5"
    codes, text = on_terminal(
        [*EXTRACT, "--retry-refused", "--view=rgb,grey"],
        ["report", WORK],
        ["report", WORK, "--full"],
        ["report", WORK, f"--attribute={COLOUR}"],
        ["audit", WORK],
        *(
            ["info", what, WORK]
            for what in (f"work{HOSTILE}", store, f"work{HOSTILE}/manifest.parquet")
        ),
        ["info", f"work{HOSTILE}/runs/hsv_histogram-knn", WORK],
        ["predict", images, WORK],
        ["predict", images, WORK, "--json"],
        ["export", store, f"out{HOSTILE}.csv", WORK],
        ["predict", f"no{HOSTILE}.png", WORK],
        ["predict", images, WORK, f"--run=no{HOSTILE}"],
        ["fit", f"--workspace={images}/{BROKEN}"],
        ["fit", f"--no{HOSTILE}"],
        ["fit", f"--seed={HOSTILE}"],
    )
    # Two predictions name the image without an answer.
    assert codes == [*[0] * 9, 1, 1, 0, 1, 1, 2, 2, 2]
    assert not [line for line in text.split("\n") if not line.isprintable()]
    reason = "not an image (no JPEG, PNG, WebP, BMP, GIF, TIFF, PPM, AVIF or HEIC)"
    assert f"\n  red{SHOWN}_plain/broken{SHOWN}.png: {reason}\n" in text
    assert f'",color{SHOWN[:-2]},1,red{SHOWN[:-2]},0.' in text
    assert f"featurepipe: No image found at 'no{SHOWN}" in text.replace("\\x", "\\u00")
    assert "Error: No such option '--no" in text


def test_a_program_gets_names_as_they_are(capsys):
    image = f"{DATA}/red{HOSTILE}_plain/{BROKEN}"
    good = f"{DATA}/red{HOSTILE}_plain/0{HOSTILE}.png"
    capsys.readouterr()
    assert run(["predict", image, good, WORK]) == 1
    table = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert table["image"].tolist() == [image, good, good]
    assert table["attribute"].tolist()[1:] == [COLOUR, "kind"]
    assert run(["predict", image, good, WORK, "--json"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["image"] for line in lines] == [image, good]
    succeed(capsys, "audit", WORK)
    findings = pd.read_csv(f"work{HOSTILE}/audit.csv")
    assert findings["image"][0] == f"red{HOSTILE}_plain/copy.png"
    board = json.loads(succeed(capsys, "report", WORK, "--json"))
    assert [row["attribute"] for row in board] == [COLOUR, "kind", "all"]


def test_cells_that_look_like_formulas_get_an_apostrophe_on_request(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number, colour in enumerate(("black", "red")):
        for index in range(8):
            draw(
                tmp_path / "data" / f"={colour}" / f"{index}.png",
                colour,
                False,
                10 * number + index,
            )
    copy = tmp_path / "data" / "=black" / "copy.png"
    copy.write_bytes((tmp_path / "data" / "=red" / "0.png").read_bytes())
    succeed(capsys, "extract", "data", "--backbone=hsv-histogram", "--attributes=+color")
    succeed(capsys, "fit", "--head=knn")
    image = str(copy.relative_to(tmp_path / "data"))
    monkeypatch.chdir(tmp_path / "data")
    for options, prefix in ((), ""), (["--spreadsheet-safe"], "'"):
        in_workspace = ["--workspace=..", *options]
        line = succeed(capsys, "predict", image, *in_workspace).splitlines()[1]
        assert line.startswith(f"{prefix}=black/copy.png,{prefix}+color,1,{prefix}=red,0.")
        succeed(capsys, "audit", *in_workspace)
        finding = (tmp_path / "audit.csv").read_text().splitlines()[1]
        cells = ["=red/0.png", "+color", "contradiction", "=red", "=black", "1.0000"]
        shown = [prefix + cell if cell[0] in "=+" else cell for cell in cells]
        assert finding.split(",")[:6] == shown
        succeed(capsys, "report", *in_workspace)
        board = pd.read_csv(tmp_path / "leaderboard.csv")
        assert board["attribute"].tolist() == [f"{prefix}+color", "all"]
        assert board["accuracy"].tolist() == [1, 1]
    assert fail(capsys, "predict", image, "--workspace=..", "--json", "--spreadsheet-safe") == (
        "featurepipe: --spreadsheet-safe only applies to CSV. Remove it, or omit --json."
    )
