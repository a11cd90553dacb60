"""What all tasks share: labelled frames, cached features, batches, the training loop, saving."""
