"""The training run: step, loop, checkpoints."""
