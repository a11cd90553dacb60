"""One file a folder layout, each with `build(card, root, options) -> Manifest`; found by their file names."""
