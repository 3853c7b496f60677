import pytest

from featurepipe.words import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, größer, 漢字 🙂", "plain, größer, 漢字 🙂"),
        ("a\x1b[2J.png", "a\\u001b[2J.png"),
        ("c1\x9b2J", "c1\\u009b2J"),
        ("right\u202eto left", "right\\u202eto left"),
        ("one\rtwo\x08\x7f", "one\\rtwo\\b\\u007f"),
        ("two\nlines\tor\u2028three", "two\\nlines\\tor\\u2028three"),
        ("caf\udce9.png", "caf\\udce9.png"),
        ("not\u200bseen", "not\\u200bseen"),
    ],
)
def test_what_is_not_printable_is_shown_as_escapes(text, shown):
    assert visible(text) == shown
    assert visible(shown) == shown
