"""Run: one thin file a verb; each composes the rooms."""
