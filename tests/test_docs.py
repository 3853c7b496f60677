"""README and docs: of one screen, all in the nav, and every command in them one that exists."""

import ast
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import featurepipe
from featurepipe.cli import cli

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").glob("*.md"))
TEXTS = [README, *PAGES]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What a person types may stand behind a prompt; what is printed below it begins otherwise.
COMMAND = re.compile(r"^(?:\$ )?featurepipe (.*)", re.MULTILINE)


def test_the_readme_is_one_screen():
    assert len(README.read_text(encoding="utf-8")) <= 6000


def test_every_page_is_in_the_nav():
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = re.findall(r"[\w-]+: ([\w-]+\.md)$", config, re.MULTILINE)
    assert sorted(named) == [page.name for page in PAGES]


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.name)
def test_links_to_pages_and_pictures_lead_somewhere(text):
    links = re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", text.read_text(encoding="utf-8"))
    assert [link for link in links if not (text.parent / link).exists()] == []


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.name)
def test_every_command_exists_with_its_options(text):
    wrong = {line: why for line in _commands(text) if (why := _wrong_in(line))}
    assert wrong == {}


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.name)
def test_every_option_named_in_a_sentence_exists(text):
    prose = FENCE.sub("", text.read_text(encoding="utf-8"))
    known = {name for command in cli.commands.values() for name in _option_names(command)}
    spans = re.findall(r"`(--[a-z][\w-]*)[^`]*`", prose)
    assert sorted(set(spans) - known) == []


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.name)
def test_every_call_in_python_exists_with_its_arguments(text):
    blocks = [code for kind, code in _blocks(text) if kind == "python"]
    calls = [
        node
        for block in blocks
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("featurepipe.")
    ]
    wrong = {ast.unparse(call): why for call in calls if (why := _wrong_in_call(call))}
    assert wrong == {}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("featurepipe extrakt x", "no command 'extrakt'"),
        ("featurepipe extract --bakbone x", "No such option"),
        ("featurepipe extract --engine cuda", "'cuda' is not one of"),
        ("featurepipe export store", "STORE... is missing"),
        ("featurepipe extract x --view rgb,grey  # twice", ""),
    ],
)
def test_wrong_commands_are_noticed(line, reason):
    assert reason.lower() in _wrong_in(line).lower()
    assert bool(reason) == bool(_wrong_in(line))


def _blocks(text: Path) -> Iterator[tuple[str, str]]:
    yield from FENCE.findall(text.read_text(encoding="utf-8"))


def _commands(text: Path) -> Iterator[str]:
    """Every command line of a page: in its blocks, and in its sentences between backticks."""
    content = text.read_text(encoding="utf-8")
    for kind, block in FENCE.findall(content):
        if kind != "python":
            for found in COMMAND.finditer(block.replace("\\\n", " ")):
                yield f"featurepipe {found[1]}"
    names = "|".join(cli.commands)
    for found in re.finditer(rf"`(?:featurepipe )?((?:{names}) [^`]+)`", FENCE.sub("", content)):
        yield f"featurepipe {found[1]}"


def _wrong_in(line: str) -> str:
    """What click would refuse in a command line; nothing is run."""
    _, name, *arguments = shlex.split(line, comments=True)
    if name.startswith("-"):
        return _unparsed(cli, [name])
    if name not in cli.commands:
        return f"no command {name!r}"
    return _unparsed(cli.commands[name], arguments)


def _unparsed(command: click.Command, arguments: list[str]) -> str:
    context = command.context_class(command, info_name=command.name)
    try:
        options, _, _ = command.make_parser(context).parse_args(list(arguments))
        for param in command.get_params(context):
            value = options.get(param.name or "")
            is_absent = value is None or value == () or not isinstance(value, str | list | tuple)
            if is_absent and param.required and isinstance(param, click.Argument):
                return f"{param.make_metavar(context)} is missing"
            # Files of an example need not exist.
            if not is_absent and not isinstance(param.type, click.Path):
                param.type_cast_value(context, value)
    except click.UsageError as error:
        return error.format_message()
    return ""


def _option_names(command: click.Command) -> Iterator[str]:
    context = command.context_class(command, info_name=command.name)
    for param in command.get_params(context):
        yield from (*param.opts, *param.secondary_opts)


def _wrong_in_call(call: ast.Call) -> str:
    name = ast.unparse(call.func).removeprefix("featurepipe.")
    keywords = {keyword.arg: None for keyword in call.keywords if keyword.arg}
    try:
        function = featurepipe
        for part in name.split("."):
            function = getattr(function, part)
        inspect.signature(function).bind(*call.args, **keywords)
    except (AttributeError, TypeError) as error:
        return str(error)
    return ""
