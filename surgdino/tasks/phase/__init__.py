"""Phase recognition: head, temporal models, loss, files, scores and prediction."""
