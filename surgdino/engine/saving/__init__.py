"""The trainer's state, and the checkpoint that users take away."""
