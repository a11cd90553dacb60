"""One file a verb; each composes the rooms."""
