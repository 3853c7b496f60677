"""Every command's help page, and that its options are what its workflow takes."""

import inspect

import click
import pytest

import featurepipe
from featurepipe.cli import cli, run
from featurepipe.errors import FeaturepipeError
from featurepipe.models.heads.registry import HEADS
from featurepipe.models.networks.recipes import NETWORKS

COMMANDS = sorted(cli.commands)
HEADINGS = {
    "extract": [
        "Data",
        "Backbone",
        "Backbone from a file or preset",
        "Computation",
        "Cluster",
        "Cached features",
        "Output",
    ],
    "fit": ["Data", "Split", "Model", "Training", "Computation", "Cluster", "Output"],
    "train": ["Data", "Split", "Network", "Training", "Cluster", "Output"],
    "report": ["Table", "Output"],
    "predict": ["Model", "Answers", "Pictures", "Output"],
    "serve": ["Model", "Answers", "Server", "Output"],
    "same": ["Model", "Output"],
    "similar": ["Search", "Output"],
    "next": ["Model", "Choice", "Output"],
    "audit": ["Model", "Computation", "Output"],
    "export": ["Data", "Model", "Output"],
    "check": ["Output"],
    "repeat": ["Computation", "Output"],
    "info": ["Checks", "Output"],
}
# What decides how results are printed, and nothing about the results themselves.
OF_THE_TERMINAL = {"as_json", "quiet", "list_backbones", "full", "attribute"}
# Where the command itself prints what the option is about.
# In Python, the values of preprocessing are one mapping.
OF_THE_COMMAND = {
    "extract": {
        "raw", "scale", "mean", "std", "channels", "resize", "interpolation", "crop_pct"
    },
    "predict": {"spreadsheet_safe"},
}  # fmt: skip
# How many images are embedded at once is for programs that serve predictions. The command line
# imports no code of others.
OF_PYTHON = {
    "extract": {"preprocess", "on_event"},
    "fit": {"trusted"},
    "predict": {"batch_size", "trusted"},
    "serve": {"on_start", "trusted"},
    "next": {"trusted"},
    "repeat": {"head"},
    "info": {"trusted"},
}
# Functions that cannot have the name of their command, which is one of Python's own.
FUNCTIONS = {"next": "next_labels"}


def function_of(name):
    return FUNCTIONS.get(name, name)


def options_of(name):
    return [param for param in cli.commands[name].params if isinstance(param, click.Option)]


def page(capsys, *arguments):
    capsys.readouterr()
    assert run([*arguments, "--help"]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "101")


def test_these_are_the_commands():
    assert set(cli.commands) == set(HEADINGS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_page_has_a_summary_a_paragraph_headings_and_examples(capsys, name):
    lines = page(capsys, name)
    usage, _, summary, _, paragraph = lines[:5]
    assert usage.startswith(f"Usage: featurepipe {name} [OPTIONS]")
    assert summary.endswith(".") and paragraph.startswith("  ")
    headings = [line[:-1] for line in lines if line and line[0] != " " and line[-1] == ":"]
    arguments = any(isinstance(param, click.Argument) for param in cli.commands[name].params)
    assert headings == [
        *(["Positional arguments"] if arguments else []),
        *HEADINGS[name],
        "Other options",
        "Examples",
    ]
    examples = lines[lines.index("Examples:") + 1 :]
    assert examples
    for example in examples:
        assert example.startswith(f"  featurepipe {name}")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_page_fits_the_terminal(capsys, name):
    lines = page(capsys, name)
    assert max(map(len, lines)) <= 100
    assert len(lines) <= 90


def test_fit_has_few_options_and_a_short_page_on_a_narrow_terminal(capsys, monkeypatch):
    assert len(options_of("fit")) + len(["--help"]) <= 31
    monkeypatch.setenv("COLUMNS", "80")
    assert len(page(capsys, "fit")) <= 90


@pytest.mark.parametrize("name", COMMANDS)
def test_options_are_described_in_a_few_words(capsys, name):
    for param in options_of(name):
        words = [word for word in param.help.split() if any(map(str.isalnum, word))]
        assert 1 <= len(words) <= 12, f"{name} {param.name}: {param.help}"
        assert param.help[-1] == "."
    for param in cli.commands[name].params:
        assert param.help
    text = "\n".join(page(capsys, name))
    # Neither ranges nor click's parentheses around words stand beside defaults.
    assert "x>" not in text and "<x" not in text and "default: (" not in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_the_common_options(name):
    options = {option for param in options_of(name) for option in param.opts}
    # A model is checked where there is no workspace.
    place = set() if name == "check" else {"--workspace"}
    assert {*place, "--json", "--quiet"} <= options


@pytest.mark.parametrize("name", COMMANDS)
def test_options_and_arguments_are_the_parameters_of_the_workflow(name):
    parameters = set(inspect.signature(getattr(featurepipe, function_of(name))).parameters)
    params = {param.name for param in cli.commands[name].params} - OF_THE_TERMINAL
    assert params - OF_THE_COMMAND.get(name, set()) == parameters - OF_PYTHON.get(name, set())


@pytest.mark.parametrize("name", COMMANDS)
def test_without_options_the_defaults_of_the_workflow_hold(monkeypatch, name):
    signature = inspect.signature(getattr(featurepipe, function_of(name)))
    calls = []

    def called(*arguments, **options):
        calls.append(signature.bind(*arguments, **options).arguments)
        raise FeaturepipeError("This is far enough.")

    monkeypatch.setattr(featurepipe, function_of(name), called, raising=False)
    arguments = [param.name for param in cli.commands[name].params if param.required]
    assert run([name, *("finetune" for _ in arguments)]) == 1
    (options,) = calls
    for option in options.keys() - set(arguments):
        default = signature.parameters[option].default
        # A default of several names is one name in Python.
        assert options[option] in (default, (default,))


def test_only_what_is_random_has_a_seed_and_only_heads_have_jobs():
    def with_option(name):
        return {command for command in COMMANDS for p in options_of(command) if name in p.opts}

    assert with_option("--seed") == {"extract", "fit", "train"}
    assert with_option("--jobs") == {"fit", "repeat"}


def test_names_in_help_are_those_that_exist(capsys):
    (head,) = (param for param in options_of("fit") if param.name == "head")
    assert head.metavar.split("|") == list(HEADS)
    (network,) = (param for param in cli.commands["train"].params if param.name == "network")
    assert network.help.rstrip(".").replace(" or ", ", ").split(", ") == list(NETWORKS)


def test_the_overview_names_every_command(capsys):
    lines = page(capsys)
    assert max(map(len, lines)) <= 100
    for name in COMMANDS:
        assert any(line.startswith(f"  {name} ") for line in lines)
