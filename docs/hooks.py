"""What mkdocs generates: the command reference, from each command's own `--help`."""

from typing import Any

import click

from featurepipe.cli import cli

PAGE = "commands.md"
WIDTH = 100


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Append the help of every command to the page that is named for it."""
    return markdown + command_reference() if page.file.src_uri == PAGE else markdown


def command_reference() -> str:
    """A section for each command: its help, `WIDTH` columns wide."""
    settings: dict[str, Any] = {"resilient_parsing": True, "terminal_width": WIDTH}
    group = cli.make_context("featurepipe", [], **settings)
    sections = []
    for name in cli.list_commands(group):
        context = cli.commands[name].make_context(name, [], parent=group, **settings)
        sections.append(f"\n## {name}\n\n```text\n{click.unstyle(context.get_help())}\n```\n")
    return "".join(sections)
