"""What is on disk: whole-file writes, weights, settings, checkpoints, runs, your own pictures."""
