"""Backbones from a file: which file, what is done to pixels before it, what of it is computed."""
