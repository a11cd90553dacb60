"""Decoders, one file each, discovered by file name: `data.decoder=NAME`."""
