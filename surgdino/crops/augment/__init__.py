"""Augmentations: one file a family of effects."""
