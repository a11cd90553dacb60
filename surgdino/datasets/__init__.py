"""Adapters: a folder on disk and its card become a Manifest. Says what is there; decodes nothing, trains nothing."""
