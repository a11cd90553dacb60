"""One file a format: `class NAME(Format)`; found by its name."""
