"""Backbone: a timm vision transformer that takes masks and any crop size, and the reading of natural-image weights."""
