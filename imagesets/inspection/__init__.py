"""What can be known about a source of images before it is decoded."""
