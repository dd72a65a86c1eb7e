"""Configuration: the schema, the presets and how both are loaded."""
