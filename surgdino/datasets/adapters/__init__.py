"""One file a folder layout, each with one subclass of `surgdino.datasets.adapter.Adapter`; found by file name."""
