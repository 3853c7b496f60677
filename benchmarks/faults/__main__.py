"""What feature stores hold after faults: no committed row lost, every row right.

    python benchmarks/faults [--kills 100] [--images 3000] [--seed 0] [--only NAME …]

The installed command line extracts generated images, two views in one pass, in a child process,
and a fault disturbs it. Afterwards, every row is compared with the features that an undisturbed
run computed for the bytes that the row's digest names:

* *lost*: the row was done at an earlier look; at a later look it is missing or different, though
  its image has not changed;
* *wrong*: the row is done with other features than those of its bytes, or is damaged, or an
  undisturbed run afterwards does not bring it up to date.

Small and read-only disks are mounted where that is permitted (root). Elsewhere the fault is
skipped or done with file modes, and the table says so.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from damage import corruption, structure
from disks import full_disk, permissions, read_only
from kills import kill_extract, kill_grow, kill_heal, send_signals
from other_processes import reader, second_writer
from outcomes import HEADER, Outcome
from sources import images_change, links, stalled_server
from testbed import Testbed

FAULTS: dict[str, Callable[[Testbed, random.Random], Iterator[Outcome]]] = {
    "kill-extract": kill_extract,
    "kill-grow": kill_grow,
    "kill-heal": kill_heal,
    "signals": send_signals,
    "full-disk": full_disk,
    "read-only": read_only,
    "second-writer": second_writer,
    "reader": reader,
    "images-change": images_change,
    "links": links,
    "permissions": permissions,
    "stalled-server": stalled_server,
    "corruption": corruption,
    "structure": structure,
}


def main() -> None:
    """Try all faults and print a table."""
    parser = argparse.ArgumentParser(prog="benchmarks/faults", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="number of SIGKILLs in all")
    parser.add_argument("--images", type=int, default=3000, help="number of generated images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only", action="append", choices=FAULTS, metavar="NAME", default=[],
        help=f"try this fault only; repeatable: {', '.join(FAULTS)}",
    )  # fmt: skip
    parser.add_argument("--keep", action="store_true", help="do not remove the temporary folder")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="featurepipe-faults-"))
    # A process without root's rights must be able to enter it.
    folder.chmod(0o755)
    try:
        bed = Testbed(folder, arguments.images, arguments.seed, arguments.kills)
        print(HEADER, flush=True)
        outcomes = [
            outcome for name in arguments.only or FAULTS for outcome in try_fault(bed, name)
        ]
    finally:
        if not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)
    for line in (line for outcome in outcomes for line in outcome.problems):
        print(f"\n* {line}")
    sys.exit(not all(outcome.is_good for outcome in outcomes))


def try_fault(bed: Testbed, name: str) -> list[Outcome]:
    """Try one fault, and print its rows of the table."""
    started = time.perf_counter()
    outcomes = []
    for outcome in FAULTS[name](bed, random.Random(f"{bed.seed} {name}")):
        outcomes.append(outcome)
        print(outcome, flush=True)
        for line in outcome.problems:
            print(f"  {line}", file=sys.stderr, flush=True)
    print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return outcomes


if __name__ == "__main__":
    main()
