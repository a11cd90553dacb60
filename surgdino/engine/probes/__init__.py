"""Probes, one file each, discovered by file name; `surgdino.engine.probing.measures.Probe` is their interface."""
