"""What evaluations share: their interface, what they are given, what they find."""
