"""Heads and networks, their calibration and their files."""
