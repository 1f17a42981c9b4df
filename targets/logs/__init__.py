"""Logs of other tools, read into our own types. Rule: a log that cannot be read is refused with its reason."""
