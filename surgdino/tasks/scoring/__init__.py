"""Scoring that all tasks share: protocols, prediction files matched with a truth."""
