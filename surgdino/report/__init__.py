"""Report: figures of what a run did."""
