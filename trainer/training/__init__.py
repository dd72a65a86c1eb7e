"""The training itself: loop, losses, state, checkpoints, run folder, logging, and CUDA graphs."""
