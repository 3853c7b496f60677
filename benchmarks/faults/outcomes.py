"""What a fault did: how a process ended, and one row of the table."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from stores import Snapshot, Truth

HEADER = "| fault | runs | rows checked | lost | wrong | what was seen |\n|" + " --- |" * 6


@dataclass(frozen=True)
class Ended:
    """How a process ended, and what it wrote."""

    code: int
    out: str
    err: str


@dataclass
class Outcome:
    """What was seen under one fault: a row of the table, and the problems behind it."""

    fault: str
    n_runs: int = 0
    n_rows: int = 0
    n_lost: int = 0
    n_wrong: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether nothing went wrong."""
        return not (self.n_lost or self.n_wrong or self.problems)

    def __str__(self) -> str:
        seen = "; ".join(f"{what} ({n})" if n > 1 else what for what, n in self.seen.items())
        cells = (self.fault, self.n_runs, f"{self.n_rows:,}", self.n_lost, self.n_wrong, seen)
        bad = f" **{len(self.problems)} problems**" if self.problems else ""
        return f"| {' | '.join(map(str, cells))}{bad} |"

    def complain(self, what: str) -> None:
        """Record a problem, once."""
        line = f"{self.fault}: {what}"
        if line not in self.problems:
            self.problems.append(line)

    def require(self, holds: bool, what: str) -> None:
        """Record a problem unless the condition holds."""
        if not holds:
            self.complain(what)

    def note(self, ended: Ended, *, code: int | Collection[int], says: str = "") -> None:
        """Count how a process ended, and check its exit code and its message."""
        codes = (code,) if isinstance(code, int) else code
        self.seen[f"exit {ended.code}" + (f", “{says}”" if says and says in ended.err else "")] += 1
        self.require("Traceback" not in ended.err, f"traceback: {ended.err[-1500:]}")
        self.require(ended.code in codes, f"exit {ended.code}, not {codes}: {ended.err[-500:]}")
        self.require(says in ended.err, f"the message lacks {says!r}: {ended.err[-500:]!r}")
        if ended.code == 1:
            lines = [line for line in ended.err.splitlines() if line.startswith("featurepipe: ")]
            self.require(len(lines) == 1, f"not exactly one error line: {ended.err[-500:]!r}")

    def judge(
        self, before: Mapping[str, Snapshot], after: Mapping[str, Snapshot], truth: Truth,
        changed: Collection[str] = (),
    ) -> None:  # fmt: skip
        """Compare the stores with what they held before, and with the truth."""
        self.require(set(before) <= set(after), "a whole store is lost")
        for view, snapshot in after.items():
            self.n_rows += len(snapshot.done) + len(snapshot.refused)
            known = before[view].done if view in before else {}
            lost = [
                key
                for key, row in known.items()
                if key not in changed and snapshot.done.get(key) != row
            ]
            wrong = [key for key, row in snapshot.done.items() if not truth.holds(view, *row)]
            wrong += snapshot.damaged
            self.n_lost += len(lost)
            self.n_wrong += len(wrong)
            if lost or wrong:
                self.complain(f"{view}: lost {lost[:3]}, wrong {wrong[:3]}")
