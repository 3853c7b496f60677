"""What came of the mutations: a table by kind of file, and the distinct findings."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

PROBLEMS = ("traceback", "crash", "hang", "excess", "executed", "outside", "escape", "no reason")


@dataclass(frozen=True)
class Tried:
    """One mutation and what came of it."""

    seed: int
    kind: str
    file: str
    mutation: str
    command: str
    code: int
    problems: list[str]
    last_line: str
    where: str
    seconds: float
    err: str

    @property
    def signature(self) -> tuple[str, ...]:
        """Equal for findings that probably have one cause."""
        error = re.match(r"[\w.]+", self.last_line)
        place = self.where or self.command.partition(" ")[0]
        return ("+".join(self.problems), error[0] if error else "", place)


def save(path: Path, tried: Sequence[Tried]) -> None:
    """Save all findings as JSON."""
    findings = [asdict(one) for one in tried if one.problems]
    path.write_text(json.dumps(findings, indent=1))


def table(tried: Sequence[Tried], kinds: Sequence[str]) -> str:
    """The outcomes by kind of file, in Markdown."""
    header = ("file", "mutations", "exit 0", "exit 1", *PROBLEMS)
    lines = [_row(header), "| --- " * len(header) + "|"]
    for name in (*kinds, "all"):
        some = [one for one in tried if name in (one.kind, "all")]
        found = Counter(problem for one in some for problem in one.problems)
        codes = Counter(one.code for one in some)
        figures = (len(some), codes[0], codes[1], *(found[problem] for problem in PROBLEMS))
        if some:
            lines.append(_row((name, *figures)))
    return "\n".join(lines)


def distinct(tried: Sequence[Tried]) -> str:
    """The distinct findings in Markdown, the most frequent first, each with examples."""
    groups: dict[tuple[str, ...], list[Tried]] = defaultdict(list)
    for one in tried:
        if one.problems:
            groups[one.signature].append(one)
    lines = []
    for (problems, _, place), some in sorted(groups.items(), key=lambda group: -len(group[1])):
        kinds = ", ".join(sorted({one.kind for one in some}))
        lines.append(
            f"* **{problems}** at `{place}`, {len(some)} times ({kinds}): {some[0].last_line}"
        )
        lines += [
            f"    * seed {one.seed}: {one.file}, {one.mutation[:150]}; `{one.command}`"
            for one in some[:3]
        ]
    return "\n".join(lines)


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"
