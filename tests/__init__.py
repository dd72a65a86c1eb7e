"""A package, so that `tests` is this folder: torch-fidelity installs a top-level package of that name too."""
