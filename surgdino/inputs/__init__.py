"""What a configuration names, opened: datasets, a probe, labelled parts, a video."""
