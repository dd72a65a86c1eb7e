"""PyTorch networks that know nothing of the images to score: one definition for extractor files and for training."""
