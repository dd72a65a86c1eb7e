"""The images that the tests run: built once a session, by whichever engine works here.

TEST_IMAGES=service builds and runs the service and the evaluation job, as CI does; TEST_IMAGES=all the trainer and
the bento too (`make test-images`). Without it, and not on CI, these tests are left out: building takes minutes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / ".ci"))

import images  # noqa: E402
from images import Engine, ImageError, find_engine, make_base  # noqa: E402

from tests.images.containers import Image  # noqa: E402

WHICH = os.environ.get("TEST_IMAGES") or ("service" if os.environ.get("CI") == "true" else "")
collect_ignore = [] if WHICH == "all" else ["test_trainer_image.py", "test_bento_image.py", "test_memory_limit.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(1800))
            if not WHICH:
                item.add_marker(pytest.mark.skip(reason="builds images for minutes: make test-images"))


@pytest.fixture(scope="session")
def engine() -> Engine:
    try:
        return find_engine()
    except ImageError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def ground(engine: Engine) -> str:
    """The base image: $BASE, else the default's where a registry is at hand, as it is for docker and podman."""
    if named := os.environ.get("BASE"):
        return make_base(engine) if named == "debootstrap" else named
    return make_base(engine) if engine.name == "buildah" else images.BAKE["variable"]["BASE"]["default"]


@pytest.fixture(scope="session")
def built(engine: Engine, ground: str) -> Callable[[str], Image]:
    """The image of a role, built from what is in the working tree."""
    known: dict[str, Image] = {}

    def image(role: str) -> Image:
        if role not in known:
            torch = os.environ.get("TORCH") if role == "trainer" else None
            tag = images.build(engine, role, ground, torch or "")
            print("\n" + images.sizes(engine, [tag], ground))
            known[role] = Image(engine, tag)
        return known[role]

    return image


@pytest.fixture(scope="session")
def service_image(built: Callable[[str], Image]) -> Image:
    return built("service")


@pytest.fixture(scope="session")
def evaluation_image(built: Callable[[str], Image]) -> Image:
    return built("evaluation")
