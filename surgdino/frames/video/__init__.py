"""Video decoding: packets, decoders, sampling in time."""
