"""The public Python API: one function a command, one file each.

Nothing is imported here: each command loads what it needs, and no more.
"""
