"""How the server processes run: connections, shutdown, supervision; all private parts of BentoML, uvicorn, circus.

A module that needs private parts lists them in SYMBOLS. Where a version lacks one, a warning names the feature that is
off, and the public behavior of that package remains (see `private_symbols`).
"""
