"""Object detection and instance segmentation: heads, targets, files in COCO's form, scores and pictures."""
