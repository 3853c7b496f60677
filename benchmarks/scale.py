"""Measure how far one part of featurepipe scales: each command draws its own data.

python benchmarks/scale.py manifest [--rows 10000000]
"""

import click
from scale_manifest import manifest


@click.group(help=__doc__.splitlines()[0])
def main() -> None:
    """Choose what is measured."""


main.add_command(manifest)


if __name__ == "__main__":
    main()
