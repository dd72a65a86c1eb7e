"""Generator files: the export of a checkpoint, the import of other code's weights, and faster forms of both."""
