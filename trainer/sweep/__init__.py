"""Hyperparameter sweeps: many runs of one preset that differ in a few fields (`trainer sweep`)."""
