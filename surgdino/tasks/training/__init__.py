"""Supervised training that all tasks share: settings, batches, stages, the loop."""
