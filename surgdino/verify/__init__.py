"""surgdino verify: a dataset folder checked against its card."""
