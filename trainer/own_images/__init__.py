"""`trainer train SOURCE`: look at a set of images, choose settings for it, estimate the training, and report all."""
