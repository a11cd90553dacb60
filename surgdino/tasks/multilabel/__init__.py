"""What multi-label tasks share: a loss for rare classes, how rare they are, and the components of triplets."""
