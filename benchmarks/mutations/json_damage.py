"""Damage to the structure of JSON: values, keys, and JSON that no library would write."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

DEEP = "[" * 100_000 + "]" * 100_000
"""More nesting than the stack has room for."""


def bad_value(rng: random.Random) -> Any:
    """A value that nobody expects; also one that begins like something else."""
    values = (
        None, True, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 10**400, 1e308, 0.5, -0.0,
        float("nan"), float("inf"), "", " ", "x", "x" * 100_000, "../../outside/victim.txt",
        "/etc/passwd", "..", "a/b", "\0", "\x1b[31mred\x1b[0m", "\ud800", "ä\u202e", "1", "nan",
        [], {}, [None], [[]], [1, "a"], {"a": 1}, {"": {}}, ["x"] * 10_000, [[[[[[]]]]]],
        "2024-13-45T99:99:99", "http://127.0.0.1:9/x", "%s%n{0}", "=cmd()",
    )  # fmt: skip
    return rng.choice(values)


def damage_json(rng: random.Random, path: Path, donor: Path) -> str:
    """Damage a JSON file; what was done."""
    text, done = damage_json_text(rng, path.read_text(), donor.read_text())
    path.write_text(text, errors="surrogatepass")
    return done


def damage_json_text(rng: random.Random, text: str, donor: str) -> tuple[str, str]:
    """Damaged JSON, and what was done."""
    if rng.random() < 0.15:
        damage = rng.choice((_nest, _double_key, _mark_start, _add_rubbish, _change_literal))
        return damage(rng, text), damage.__name__.strip("_")
    value, done = json.loads(text), []
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        value, what = damage_tree(rng, value, json.loads(donor))
        done.append(what)
    return json.dumps(value, ensure_ascii=rng.random() < 0.8), "; ".join(done)


def damage_tree(rng: random.Random, tree: Any, donor: Any) -> tuple[Any, str]:
    """Change one place in a tree of JSON values; the tree, and what was done."""
    places = list(_places(tree))
    if not places:
        return bad_value(rng), "new root"
    # Most values of a file are in long lists; each level gets its share.
    depth = rng.randint(1, max(depth for _, _, depth in places))
    holder, key, _ = rng.choice([place for place in places if place[2] == depth])
    damage: Callable[..., str] = rng.choice(_TREE_DAMAGES)
    name = f"{str(key)[:40]!r}"
    return tree, f"{damage(rng, holder, key, donor)} {name}"


def _places(tree: Any, depth: int = 1) -> Any:
    """Each holder and key of a tree, with its depth."""
    if not isinstance(tree, dict | list):
        return
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield tree, key, depth
        yield from _places(value, depth + 1)


def _drop(rng: random.Random, holder: Any, key: Any, donor: Any) -> str:
    del holder[key]
    return "dropped"


def _set_bad(rng: random.Random, holder: Any, key: Any, donor: Any) -> str:
    holder[key] = bad_value(rng)
    return f"set {str(holder[key])[:40]!r} at"


def _wrap(rng: random.Random, holder: Any, key: Any, donor: Any) -> str:
    holder[key] = rng.choice(([holder[key]], {"a": holder[key]}, str(holder[key])))
    return "wrapped"


def _vary(rng: random.Random, holder: Any, key: Any, donor: Any) -> str:
    value = holder[key]
    if isinstance(value, bool):
        holder[key] = not value
    elif isinstance(value, int | float):
        holder[key] = rng.choice((-value, value + 1, value * 1000, value / 3, 0, str(value)))
    elif isinstance(value, str):
        ways = (
            value[:-1],
            value + "x",
            "../" + value,
            value.upper(),
            value + "\x1b[2J",
            value * 999,
        )
        holder[key] = rng.choice(ways)
    elif isinstance(value, list):
        holder[key] = rng.choice((value[:-1], value * 2, value[::-1], [*value, bad_value(rng)]))
    elif isinstance(value, dict):
        holder[key] = rng.choice((list(value), list(value.values()), value | {"x": 1}))
    return "varied"


def _rename(rng: random.Random, holder: Any, key: Any, donor: Any) -> str:
    if isinstance(holder, list):
        holder.insert(key, bad_value(rng))
        return "inserted before"
    holder[rng.choice(("", "x", "../x", "\x1b[1m", str(key) + "2", "x" * 9999))] = holder.pop(key)
    return "renamed"


def _transplant(rng: random.Random, holder: Any, key: Any, donor: Any) -> str:
    places = list(_places(donor))
    if places:
        there, other, _ = rng.choice(places)
        holder[key] = there[other]
    return "transplanted into"


_TREE_DAMAGES = (_drop, _set_bad, _set_bad, _set_bad, _wrap, _vary, _vary, _rename, _transplant)


def _nest(rng: random.Random, text: str) -> str:
    return rng.choice(
        (DEEP, '{"a":' * 100_000 + "1" + "}" * 100_000, text[:-1] + ',"x":' + DEEP + "}")
    )


def _double_key(rng: random.Random, text: str) -> str:
    value = json.loads(text)
    if not isinstance(value, dict) or not value:
        return text + text
    key = rng.choice(list(value))
    return text.rstrip()[:-1] + f", {json.dumps(key)}: {json.dumps(bad_value(rng))}}}"


def _mark_start(rng: random.Random, text: str) -> str:
    return rng.choice(("\ufeff", "\0", "//x\n", " " * 100_000)) + text


def _add_rubbish(rng: random.Random, text: str) -> str:
    return text + rng.choice(("x", "\0" * 99, "{}", text))


def _change_literal(rng: random.Random, text: str) -> str:
    new = rng.choice(
        ("NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "-0", "01", "'a'", "0x1")
    )
    for old in rng.sample(("null", "true", "false", " 0", " 1", "[]"), 6):
        if old in text:
            return text.replace(old, new, rng.choice((1, 1, 999)))
    return text + new
