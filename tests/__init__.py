"""The tests, by room: tests/<room>/ checks surgdino/<room>/; house/ and foundations/ check the whole and its base."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
