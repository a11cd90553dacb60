"""Heads over a backbone's tokens that more than one task can use."""
