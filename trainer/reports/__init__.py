"""What a run looks like: image grids, animations, curves and HTML pages."""
