"""Which instruments a frame shows."""
