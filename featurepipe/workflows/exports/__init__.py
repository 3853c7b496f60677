"""Runs as models for other programs: one file, what is said of it, and a web page."""
