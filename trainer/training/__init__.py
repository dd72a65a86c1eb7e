"""The training itself: loop, losses, augmentation, state, checkpoints, run folder, logging, and CUDA graphs."""
