"""Hostile, broken and merely unusual inputs, a file a class; each file has a function `cases()`."""
