"""Reference statistics of real images: files, their cache, and the import of other tools' statistics."""
