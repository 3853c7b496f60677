"""Measure how far one part of featurepipe scales: each command draws its own data.

python benchmarks/scale.py manifest [--rows 10000000]
python benchmarks/scale.py listing [--images 200000,1000000]
python benchmarks/scale.py fit [--rows 100000,1000000]
python benchmarks/scale.py store
python benchmarks/scale.py extract SOURCE [--backbone mobilenet_v2]
python benchmarks/scale.py tars [--images 1000000]
python benchmarks/scale.py failures [--images 100000000] [--workers 200]
"""

import click
from scale_extract import extract
from scale_failures import failures
from scale_fit import main as fit
from scale_listing import listing
from scale_manifest import manifest
from scale_store import main as store
from scale_tars import tars


@click.group(help=__doc__.splitlines()[0])
def main() -> None:
    """Choose what is measured."""


main.add_command(manifest)
main.add_command(listing)
main.add_command(fit, "fit")
main.add_command(store, "store")
main.add_command(extract)
main.add_command(tars)
main.add_command(failures)


if __name__ == "__main__":
    main()
