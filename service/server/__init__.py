"""Everything that depends on private parts of BentoML, uvicorn and circus.

Each module lists in SYMBOLS the private parts that it needs. Where a version lacks one, a warning names the feature
that is off, and the public behavior of the package remains (see `compatibility`).
"""
