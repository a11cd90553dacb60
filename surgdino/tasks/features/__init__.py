"""Features of a frozen backbone, computed once and kept."""
