"""The command line as tests use it."""

from featurepipe.cli import run


def succeed(capsys, *arguments):
    """Standard output of a command."""
    capsys.readouterr()
    code = run(list(map(str, arguments)))
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


def fail(capsys, *arguments):
    """The one line that a command says when it fails."""
    capsys.readouterr()
    assert run(list(map(str, arguments))) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("featurepipe: ")
    return line


def refuse(capsys, *arguments):
    """The last line of a usage error."""
    capsys.readouterr()
    assert run(list(map(str, arguments))) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"Try 'featurepipe {arguments[0]} --help' for help." in err
    return err.strip().splitlines()[-1].removeprefix("Error: ")
