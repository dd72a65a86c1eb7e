"""Augmentation of all images that D sees, real and fake: policies, and the probability with which each is applied."""
