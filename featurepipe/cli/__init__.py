"""The command line: parse, call one workflow, turn errors into exit codes.

Nothing heavy is imported here: each command imports its workflow when it runs.
"""

from featurepipe.cli.commands import cli
from featurepipe.cli.running import main, run

__all__ = ["cli", "main", "run"]
