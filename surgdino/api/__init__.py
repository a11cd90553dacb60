"""Python: the verbs as functions with typed results, and trained models to call. `surgdino` itself exports it."""
