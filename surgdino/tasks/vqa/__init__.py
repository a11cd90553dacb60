"""Questions about a frame, answered from a list."""
