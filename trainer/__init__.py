"""Train GANs on an image set and export their generators."""

__version__ = "0.1.0"
