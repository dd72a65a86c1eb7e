"""Other ways to serve a generator, for comparison with the service."""
