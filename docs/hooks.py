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
    group = cli.context_class(cli, info_name="featurepipe", terminal_width=WIDTH)
    sections = []
    for name in cli.list_commands(group):
        command = cli.commands[name]
        context = command.context_class(command, parent=group, info_name=name, terminal_width=WIDTH)
        help_text = click.unstyle(command.get_help(context))
        sections.append(f"\n## {name}\n\n```text\n{help_text}\n```\n")
    return "".join(sections)
