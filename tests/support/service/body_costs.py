"""What each hostile body costs a process that parses it: `python -m tests.support.service.body_costs`.

Prints the most processor seconds of one body, the growth of the peak memory in MB, and the name of that body.
"""

import resource
import time
from typing import Any

from service.errors import ApiError
from service.routes import request_parsing
from service.routes.schemas import GenerateRequest, ImageSpec, InterpolateRequest, MixRequest
from tests.support import hostile_bodies

SIZE = 4 * 2**20


SCHEMAS = {
    hostile_bodies.GENERATE: GenerateRequest,
    hostile_bodies.INTERPOLATE: InterpolateRequest,
    hostile_bodies.MIX: MixRequest,
    hostile_bodies.NATIVE: ImageSpec,
}


def outcome(body: bytes, schema: Any) -> str:
    """The code of the refusal, or an empty text."""
    try:
        request_parsing.parse_json(body, schema)
    except ApiError as error:
        return error.code if "\n" not in error.message and len(error.message) < 1000 else error.message
    return ""


def main() -> None:
    bodies = hostile_bodies.bodies(SIZE)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    worst = 0.0, ""
    for name, (route, body) in bodies.items():
        began = time.process_time()
        outcome(body, SCHEMAS[route])
        worst = max(worst, (time.process_time() - began, name))
    print(worst[0], (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, worst[1])


if __name__ == "__main__":
    main()
