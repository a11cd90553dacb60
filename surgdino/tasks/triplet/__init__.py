"""Action triplets: head, loss, training, files, scores and prediction."""
