"""Mutate every kind of file that featurepipe reads: each command must end well, or say why not.

    python benchmarks/mutations [--mutations 10000] [--seed 0] [--kinds NAME …] [--findings FILE]

Each mutation damages the bytes or the structure of one file in a small workspace, and a command
that reads this file runs in a child process of limited time and memory. A finding is:

* *traceback*: an exception that is no answer to the user; *crash*: a signal or another exit code;
* *hang*: more than 20 s of processor time (networks: 60 s), or 15 s without work;
* *excess*: more than 2 GB of memory or
  400 MB of disk beyond what was there before;
* *executed*: code in the file was executed;
* *outside*: a file outside of the workspace was changed;
* *escape*: a control sequence of the file reached the terminal;
* *no reason*: exit code 1 without a line that says why.

The seed of a mutation is `--seed` plus its number: `--seed S --mutations 1` tries it again.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from child import Ended, Limits, watch
from drawn import draw_place
from kinds import KINDS, Command, command_for, mutate
from outcomes import Tried, distinct, save, table
from place import Place

NETWORKS = {"network store", "pixel cache", "network", "checkpoint", "weights", "graph", "verdict",
            "history", "near-duplicates", "found near-duplicates"}  # fmt: skip
"""Kinds of file that exist only where networks are used."""
DISK_BYTES = 400_000_000


def main() -> None:
    """Try all mutations, print a table and save the findings."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/mutations", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--mutations", type=int, default=10_000, help="number of mutations")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first mutation")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, metavar="NAME", default=list(KINDS),
                        help=f"kinds of file: {', '.join(KINDS)}; default: all")  # fmt: skip
    findings = Path(tempfile.gettempdir(), "mutations.json")
    parser.add_argument("--findings", type=Path, default=findings,
                        help="JSON of all findings; default: %(default)s")  # fmt: skip
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="featurepipe-mutations-") as folder:
        place = prepare(Path(folder), has_networks=bool(NETWORKS & set(options.kinds)))
        tried = campaign(place, options)
    print(table(tried, list(KINDS)), distinct(tried), sep="\n\n")
    sys.exit(any(one.problems for one in tried))


def prepare(root: Path, has_networks: bool) -> Place:
    """A drawn place, in which everything that commands need is imported."""
    place = Place(root)
    os.environ["FEATUREPIPE_CACHE"] = str(place.folder / "cache")
    os.environ["TMPDIR"] = tempfile.tempdir = str(place.folder / "temporary")
    os.environ["CANARY"] = str(place.canary)
    import_all(has_networks)
    started = time.perf_counter()
    draw_place(place, has_networks)
    place.freeze()
    print(f"The workspace was made in {time.perf_counter() - started:.0f} s.", file=sys.stderr)
    return place


def import_all(has_networks: bool) -> None:
    """Import what commands import, so that each child starts at once."""
    import cleanlab.filter  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import numba  # noqa: F401

    import featurepipe

    for name in featurepipe.__all__:
        getattr(featurepipe, name)
    if has_networks:
        import openvino  # noqa: F401

        from featurepipe.features.engines import keras_engine, openvino_engine  # noqa: F401
        from featurepipe.models.networks import trained, training  # noqa: F401


def campaign(place: Place, options: argparse.Namespace) -> list[Tried]:
    """Try mutations of the chosen kinds; findings are saved as they come."""
    tried: list[Tried] = []
    seed, started = options.seed, time.perf_counter()
    while len(tried) < options.mutations:
        rng = random.Random(f"mutation {seed}")
        (kind,) = rng.choices(list(KINDS), [kind.share for kind in KINDS.values()])
        if kind in options.kinds:
            tried.append(try_one(place, kind, seed, rng))
            if tried[-1].problems:
                save(options.findings, tried)
            if len(tried) % 100 == 0:
                n_found = sum(bool(one.problems) for one in tried)
                rate = len(tried) / (time.perf_counter() - started)
                print(f"{len(tried)} mutations, {n_found} findings, {rate:.1f}/s", file=sys.stderr)
        elif options.mutations == 1:
            sys.exit(f"The mutation of seed {seed} is one of {kind!r}, which --kinds leaves out.")
        seed += 1
    save(options.findings, tried)
    return tried


def try_one(place: Place, name: str, seed: int, rng: random.Random) -> Tried:
    """Mutate one file, run one command and restore everything."""
    kind = KINDS[name]
    path, mutation = mutate(rng, place, kind)
    command = command_for(rng, place, kind, path)
    outside, n_bytes = place.outside(), place.written_bytes()
    ended = watch(lambda: run_in(place, command), place.logs, limits_of(kind.is_slow))
    problems = problems_of(ended, place, outside, n_bytes)
    place.restore()
    file = path.relative_to(place.folder).as_posix()
    return Tried(seed, name, file, mutation, " ".join(command), ended.code, problems,
                 ended.last_line, ended.where, round(ended.seconds, 2),
                 ended.err[-6000:] if problems else "")  # fmt: skip


def run_in(place: Place, command: Command) -> int:
    """Run a command as the installed program does."""
    from featurepipe.cli import run

    os.chdir(place.folder)
    return run(command)


def limits_of(is_slow: bool) -> Limits:
    """More time where networks are loaded."""
    return Limits(cpu_s=60, wall_s=240) if is_slow else Limits()


def problems_of(ended: Ended, place: Place, outside: dict, n_bytes: int) -> list[str]:
    """All that went wrong."""
    problems = list(ended.problems)
    if place.canary.exists():
        problems.append("executed")
    if place.outside() != outside:
        problems.append("outside")
    if place.written_bytes() - n_bytes > DISK_BYTES and "excess" not in problems:
        problems.append("excess")
    return problems


if __name__ == "__main__":
    main()
