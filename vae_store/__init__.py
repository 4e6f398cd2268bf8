"""What is on disk: whole-file writes, weights, settings, checkpoints, a run's folder."""
