"""Crops: multi-crop inside the content disc, surgical augmentation, block masks, and the loader that feeds them."""
