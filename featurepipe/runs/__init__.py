"""Runs: the only room that knows a run's folder and its run.json."""
