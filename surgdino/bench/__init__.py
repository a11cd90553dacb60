"""surgdino bench: what limits the speed on this machine."""
