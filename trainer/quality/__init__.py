"""What quality during training is used for: when a run ends, and whether its generator memorizes."""
