"""Engine: the self-supervised objectives, the EMA teacher, the schedules, the loop and its monitor."""
