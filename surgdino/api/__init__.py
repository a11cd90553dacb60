"""Python: the verbs as functions with typed results, and trained models to call. `surgdino` itself exports it."""

import warnings

# A package that we import says so in every notebook without ipywidgets, with a path of the machine; nothing uses them.
warnings.filterwarnings("ignore", message="IProgress not found")
