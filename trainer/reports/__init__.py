"""The report of a run: image grids, animations, curves and HTML pages."""
