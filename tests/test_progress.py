import logging

import pytest

from featurepipe import progress
from featurepipe.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """Two minutes pass between any two looks at the clock."""
    times = iter(range(0, 10**6, 120))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(times)))


def test_reports_say_how_many_steps_there_are(clock, caplog):
    caplog.set_level(logging.INFO, "featurepipe")
    with Progress(None, "Fitting", "fit") as bar:
        bar.report(1, 4)
        bar.report(3, 4)
        bar.report(4, 4)
    lines = [record.getMessage().rsplit(" (", 1)[0] for record in caplog.records]
    assert lines == ["Fitting: 1 of 4", "Fitting: 3 of 4", "Fitting: 4 of 4"]


def test_a_total_that_is_known_is_counted_up_to(clock, caplog):
    caplog.set_level(logging.INFO, "featurepipe")
    with Progress(6, "Comparing", "image") as bar:
        bar.advance()
        bar.advance(3)
    lines = [record.getMessage().rsplit(" (", 1)[0] for record in caplog.records]
    assert lines == ["Comparing: 1 of 6", "Comparing: 4 of 6"]


def test_nothing_is_said_where_warnings_alone_are_wanted(clock, caplog):
    caplog.set_level(logging.WARNING, "featurepipe")
    with Progress(None, "Fitting", "fit") as bar:
        bar.report(1, 2)
    assert caplog.records == []


def test_a_bar_shows_the_total_of_the_first_report(monkeypatch, caplog, capsys):
    caplog.set_level(logging.INFO, "featurepipe")
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    with Progress(None, "Fitting", "fit") as bar:
        bar.report(2, 4)
    assert "2/4" in capsys.readouterr().err


def test_a_bar_shows_names_as_escapes(monkeypatch, caplog, capsys):
    caplog.set_level(logging.INFO, "featurepipe")
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    with Progress(2, "Exporting a\x1b[2J", "image"):
        pass
    assert "Exporting a\\u001b[2J: " in capsys.readouterr().err
