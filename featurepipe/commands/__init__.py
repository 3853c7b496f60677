"""The commands, one file each: options, one call of the public API, and what is printed."""
