"""A route of FastAPI, documented as any, whose function takes the request and answers by itself."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute


class Bare(APIRoute):
    """Without the search for dependencies of each request, which such a function does not have."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return self.endpoint
