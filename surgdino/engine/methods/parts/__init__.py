"""What methods share: views, heads, prototypes, coding rate."""
