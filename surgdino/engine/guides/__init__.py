"""Guides, one file each, discovered by file name; `surgdino.engine.guide.Guide` is their interface."""
