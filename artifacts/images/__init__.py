"""What an image is everywhere: its resolution, and its transparency."""
