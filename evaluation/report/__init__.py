"""Reports: the JSON document of a score, its views in Markdown and HTML, and comparisons of several."""
