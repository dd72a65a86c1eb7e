"""The memory that a training takes: by arithmetic, and measured."""
