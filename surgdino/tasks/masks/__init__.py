"""What segmentation needs beside its heads: where a stored frame lies in its picture, targets, loss, windows."""
