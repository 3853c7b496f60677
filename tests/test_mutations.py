"""A few mutations by `benchmarks/mutations`, and whether it notices what it looks for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

MUTATIONS = Path(__file__).parents[1] / "benchmarks" / "mutations"
WATCHED = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from child import Limits, watch
limits = Limits(cpu_s=0.5, idle_s=0.5, wall_s=20, memory_bytes=100_000_000, file_bytes=1000)
for function in (
    lambda: 0,
    lambda: print("featurepipe: no", file=sys.stderr) or 1,
    lambda: 1,
    lambda: 1 // 0,
    lambda: os.abort(),
    lambda: time.sleep(9),
    lambda: any(iter(int, 1)),
    lambda: 0 * len(b"1" * 500_000_000),
    lambda: Path(sys.argv[2], "large").write_bytes(bytes(2000)),
    lambda: print(chr(27)) or 0,
):
    print(*watch(function, Path(sys.argv[2]), limits).problems)
"""
EXPECTED = ["", "", "no reason", "traceback", "crash", "hang", "hang", "excess", "excess",
            "escape"]  # fmt: skip


def start(*arguments):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def test_what_goes_wrong_in_a_child_is_noticed(tmp_path):
    ended = start("-c", WATCHED, MUTATIONS, tmp_path)
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == EXPECTED


def test_some_mutations(tmp_path):
    kinds = ("manifest", "descriptor store", "heads", "inputs", "archive")
    ended = start(
        MUTATIONS, "--mutations=8", "--seed=0", "--findings", tmp_path / "findings.json",
        "--kinds", *kinds,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "| all | 8 |" in ended.stdout
    assert (tmp_path / "findings.json").read_text() == "[]"
