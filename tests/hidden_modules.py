"""Python code that hides a module, as if it were not installed."""

_HIDE = """
import sys
class Hiding:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, *others):
        return None if name == {name!r} else self.finder.find_spec(name, *others)
sys.meta_path[:] = map(Hiding, sys.meta_path)
"""


def hiding(name: str) -> str:
    """Code to run before all other of a process."""
    return _HIDE.format(name=name)
