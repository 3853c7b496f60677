"""The command line: what it imports, and how a command ends."""

import os
import signal
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from command_line import fail, refuse
from featurepipe.cli import cli, run

HEAVY = {"numpy", "pandas", "sklearn", "scipy", "tensorflow", "keras", "h5py", "matplotlib", "PIL",
         "pyarrow"}  # fmt: skip


def test_help_is_light_and_quick():
    code = (
        "import sys, featurepipe.cli as c; c.run(['--help']); print(*sys.modules, file=sys.stderr)"
    )
    best = float("inf")
    for _ in range(5):
        before = os.times()
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        after = os.times()
        # Time on the processor, since others may be at work on it.
        user = after.children_user - before.children_user
        best = min(best, user + after.children_system - before.children_system)
    assert "featurepipe report" in result.stdout
    loaded = {name.split(".")[0] for name in result.stderr.split()}
    assert not loaded & HEAVY
    assert best < 0.3


def test_the_command_is_installed():
    (script,) = entry_points(group="console_scripts", name="featurepipe")
    assert script.value == "featurepipe.__main__:main"


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["fit", "--task", "neither"],
        ["fit", "--test-size", "1"],
        ["fit", "--jobs", "0"],
        ["train", "finetune", "--task", "joint"],
        ["train", "finetune", "--loss-weights", "color"],
        ["train", "finetune", "--loss-weights", "color=much"],
        ["train", "finetune", "--branches", "color=rgb,color=grey"],
        ["train"],
        ["predict"],
        ["same", "one.jpg"],
        ["repair", "store"],
    ],
)
def test_usage_errors_exit_with_2(capsys, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Usage: featurepipe") and "\nError: " in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "--epochs", "3"], "--epochs only applies to train."),
        (["fit", "--no-resume"], "--no-resume only applies to train."),
        (["train", "finetune", "--head", "knn"], "--head only applies to fit."),
        (["train", "finetune", "--jobs", "2"], "--jobs only applies to fit and repeat."),
        (["repeat", "any", "--seed", "0"], "--seed only applies to extract and fit and train."),
        (["report", "--head", "knn"], "--head only applies to fit."),
    ],
)
def test_a_misplaced_option_names_the_commands_that_have_it(capsys, arguments, message):
    assert refuse(capsys, *arguments) == f"{message} Remove it."


def test_a_misspelt_option_or_command_names_the_nearest(capsys):
    assert "--hold-out" in refuse(capsys, "fit", "--holdout", "red_bright")
    assert run(["predcit"]) == 2
    assert "Did you mean 'predict'?" in capsys.readouterr().err


def test_an_unknown_network_is_refused_before_keras_is_imported(capsys, monkeypatch):
    monkeypatch.setattr("featurepipe.train", pytest.fail, raising=False)
    line = fail(capsys, "train", "fashionet")
    assert line == "featurepipe: Unknown network 'fashionet'. Did you mean 'fashionnet'?"


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "\nInterrupted. Finished work is saved; "),
        (OSError(13, "Permission denied", "a\x1b[2J.png"), 1, "denied: a\\u001b[2J.png\n"),
    ],
)
def test_what_ends_a_command_decides_its_exit_code(capsys, monkeypatch, error, code, message):
    def end(**_):
        raise error

    monkeypatch.setattr(cli.commands["audit"], "callback", end)
    assert run(["audit"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err


def test_an_error_is_a_line_of_limited_length(capsys, tmp_path):
    missing = str(tmp_path / (("x" * 200 + "/") * 50))
    line = fail(capsys, "info", missing)
    assert line.startswith("featurepipe: File name too long: ")
    assert line.rstrip().endswith("x…") and len(line) < 2100


def test_a_reader_that_has_seen_enough_is_no_error():
    command = [sys.executable, "-m", "featurepipe", "extract", "--list-backbones"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait() == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to handle")
@pytest.mark.parametrize("raised", ["raise", "raise KeyboardInterrupt from None"])
def test_sigterm_exits_with_143(raised):
    # Ray raises a KeyboardInterrupt of its own when a signal interrupts it.
    code = (
        "import os, signal\n"
        "from featurepipe.cli import cli, main\n"
        "def callback(**_):\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    except KeyboardInterrupt:\n"
        f"        {raised}\n"
        "cli.commands['audit'].callback = callback\n"
        "import sys; sys.argv = ['featurepipe', 'audit']\n"
        "main()\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 128 + signal.SIGTERM
    assert result.stderr == (
        "\nTerminated. Finished work is saved; run the same command again to continue.\n"
    )


def test_warnings_of_libraries_reach_nobody():
    """They name files of packages; a process of its own shows what Python would print."""
    code = """if True:
        import warnings, featurepipe, featurepipe.cli
        def report(**_):
            warnings.warn("least populated class")
            raise featurepipe.errors.FeaturepipeError("The end.")
        featurepipe.report = report
        featurepipe.cli.run(["report"])
    """
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr == "featurepipe: The end.\n"
