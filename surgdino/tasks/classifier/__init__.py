"""What the tasks share that classify single frames: the head, how tokens reach it, losses for many classes."""
