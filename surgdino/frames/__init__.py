"""Frames: decoding, the endoscope's content disc, which frames, and the store that keeps them."""
