"""Generation over HTTP. Nothing is imported here, so that `service.client` costs httpx and numpy alone."""
