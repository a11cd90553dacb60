"""Segmentation: heads, loss, masks, files, scores and prediction."""
