"""Claims about what the page says: captions that can be read whole, and words for whatever there is no picture of."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.service.browser import Open, Server, drawn, shows, until
from tests.support.tiny_generator import write_tiny_generator

pytestmark = pytest.mark.slow
WALL = "#wall canvas"
SIXTEEN = ",".join(str(482913 + i) for i in range(16))
CUT_SHORT = """() => [...document.querySelectorAll(".seed, .of-class")]
  .filter(e => e.scrollWidth > e.clientWidth || e.scrollHeight > e.clientHeight).map(e => e.textContent)"""
# what is nearest to a point in the middle of an element: itself, or what covers it
COVERED = """element => { const box = element.getBoundingClientRect();
  const y = [box.top + 2, box.bottom - 2].map(y => document.elementFromPoint(box.left + box.width / 2, y));
  return y.some(hit => !hit || !(element.contains(hit) || hit.contains(element))); }"""


@pytest.mark.parametrize("width", [320, 390, 768, 1280, 1360, 1920])
def test_studio_captions_are_not_cut(visit: Open, width: int) -> None:
    page = visit(viewport={"width": width, "height": 800}, has_touch=width < 1000, is_mobile=width < 1000)
    for first in (482913, 2**53 - 60):
        page.goto(page.url.split("#")[0] + f"#seed={first}")
        page.locator(f"#wall[data-drawn='{first}']").wait_for()
        seeds = page.locator("#wall .seed").all_inner_texts()
        assert [seed.replace("\n", "") for seed in seeds] == [str(first + i) for i in range(60)]
        assert set(page.locator(".of-class").all_inner_texts()) <= {"dot", "line", "ring"}
        assert page.evaluate(CUT_SHORT) == []
        assert page.evaluate("document.documentElement.scrollWidth") == width
        lines = page.locator("#wall .seed").first.evaluate("e => Math.round((e.clientHeight - 4) / 15)")
        assert lines <= (1 if first < 1e6 else 3)


def test_studio_caption_explains_the_numbers(visit: Open) -> None:
    page = visit()
    page.locator("#wall[data-drawn='0']").wait_for()
    hints = set()
    for name in page.locator("#model option").all_inner_texts():
        page.select_option("#model", label=name)
        classes = page.locator("#wall .of-class")
        until(page, lambda: page.locator("#wall[data-drawn]").count() == 1)
        page.wait_for_timeout(500)
        hint = page.inner_text("#seed-hint")
        assert "Under each: seed (" in hint
        assert hint.endswith("), class") == any(classes.all_inner_texts())
        hints.add(hint.endswith("), class"))
    assert hints == {True, False}


def test_studio_new_grid_has_short_seeds(visit: Open) -> None:
    page = visit()
    page.locator("#wall[data-drawn='0']").wait_for()
    for _ in range(5):
        before = page.input_value("#seed")
        page.get_by_role("button", name="Another wall").click()
        until(page, lambda before=before: page.input_value("#seed") != before)  # type: ignore[misc]
        assert 0 <= int(page.input_value("#seed")) < 100_000


def controls(page: Any) -> list[str]:
    """The main part's controls that can be used."""
    found: list[str] = page.eval_on_selector_all(
        "main button, main input, main select, main a",
        "e => e.filter(e => e.checkVisibility() && !e.disabled).map(e => e.innerText || e.id)",
    )
    return found


def test_studio_link_to_a_missing_model_offers_others(visit: Open, server: Server) -> None:
    page = visit("#model=gone&seed=7&picks=1,2")
    page.get_by_role("heading", name="gone is not served here").wait_for()
    assert page.locator("#empty-state p").first.inner_text().endswith("Choose another model:")
    assert sorted(controls(page)) == ["boxed", "classy", "plain"]
    assert not page.locator("#about").is_visible()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="plain").click()
    shows(page, WALL, server.images("generate", {"model": "plain", "seed": 7, "n": 60}))
    assert not page.locator("#empty-state").is_visible()
    assert page.locator("#about").is_visible()
    page.go_back()
    page.get_by_role("heading", name="gone is not served here").wait_for()
    assert not page.locator("#wall").is_visible()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Server]:
    """A separate service whose folder has one model, `only`."""
    write_tiny_generator(tmp_path / "a.onnx", name="only", size=8)
    server = Server(tmp_path).start()
    yield server
    server.stop()


def test_studio_follows_an_emptied_and_refilled_folder(visit: Open, alone: Server, tmp_path: Path) -> None:
    page = visit("#tab=morph&picks=1,2", at=alone.url, reduced_motion="no-preference")
    page.get_by_role("button", name="Play").click()
    (tmp_path / "a.onnx").unlink()
    until(page, lambda: httpx.get(f"{alone.url}/v1/models/only").status_code != 200)
    page.get_by_role("heading", name="There is no model to show").wait_for()
    body = (
        "The service’s model folder is empty. "
        "Put a generator file (.onnx) into the folder: it appears here automatically."
    )
    assert page.locator("#empty-state p").first.inner_text() == body
    page.get_by_text("Server not ready").wait_for()
    assert str(tmp_path) not in page.locator("body").inner_text()
    assert page.locator("body").inner_text().count("generator file") == 1
    assert controls(page) == []
    page.keyboard.press("Enter")

    fresh = visit(at=alone.url)  # one that never saw a model
    fresh.get_by_role("heading", name="There is no model to show").wait_for()
    (tmp_path / "broken.onnx").write_bytes(b"no such thing")
    fresh.get_by_text("The service cannot use the one file there").wait_for()
    assert "broken.onnx" in fresh.locator("#refused").inner_text()

    write_tiny_generator(tmp_path / "a.onnx", name="only", size=8, seed=5)
    page.locator("#frame").fill("0")  # where the film was stopped
    shows(page, "#slerp", alone.images("interpolate", {"keyframes": [1, 2], "steps": 25, "mode": "slerp"})[:1])
    shows(fresh, WALL, alone.images("generate", {"seed": 0, "n": 60}))
    assert not fresh.get_by_role("alert").is_visible()


def test_studio_mentions_a_rejected_file(visit: Open, alone: Server, tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / f"{name}.onnx").write_bytes(b"no such thing")
    until_failed = lambda: len(httpx.get(f"{alone.url}/v1/models").json()["failed"]) == 2  # noqa: E731
    page = visit(at=alone.url)
    until(page, until_failed)
    page.get_by_text("2 files are not served").wait_for()
    shows(page, WALL, alone.images("generate", {"seed": 0, "n": 60}))
    assert page.locator("[role=alert]:visible").count() == 0
    assert not page.locator("#refused ul").is_visible()
    page.get_by_text("2 files are not served").click()
    assert [text.split(":")[0] for text in page.locator("#refused li").all_inner_texts()] == ["x.onnx", "y.onnx"]


def test_studio_notification_keeps_the_error(visit: Open, server: Server) -> None:
    page = visit("#seed=3&tab=morph")
    page.locator("#morph-view .invite").wait_for()
    error = {"error": {"code": "x", "message": "no such luck", "type": "server_error", "param": None}}
    page.route("**/v1/generate", lambda route: route.fulfill(status=500, json=error))
    page.get_by_role("tab", name="Wall").click()
    page.get_by_role("alert").get_by_text("No such luck").wait_for()
    body = httpx.get(f"{server.url}/v1/models").json()
    for model in body["data"]:
        model["digest"] = "0" * 64
    page.route("**/v1/models", lambda route: route.fulfill(json=body))
    page.get_by_role("alert").get_by_text("classy was replaced on the server").wait_for()
    page.get_by_role("button", name="Dismiss").click()
    page.unroute("**/v1/models")
    page.unroute("**/v1/generate")
    assert page.locator("#error p").inner_text() == "No such luck"
    page.get_by_role("button", name="Try again").click()
    shows(page, WALL, server.images("generate", {"seed": 3, "n": 60}))


def test_studio_explains_weights_without_direction(visit: Open, server: Server) -> None:
    page = visit("#tab=mix&picks=3,17")
    even = server.images("mix", {"terms": [{"seed": s, "weight": 1} for s in (3, 17)]})[:1]
    shows(page, "#mixed", even)
    page.get_by_label("Weight of A").fill("0")
    page.get_by_label("Weight of B").fill("0")
    alert = page.get_by_role("alert")
    alert.get_by_text("Move a slider, or clear “keep the length of a latent”.").wait_for()
    assert page.get_by_label("keep the length of a latent").is_checked()  # it is there by that name
    assert "normalize" not in alert.inner_text()
    assert not page.get_by_role("button", name="Try again").is_visible()
    assert not drawn(page, "#mixed").any()  # transparent: the picture of the weights before is not left there
    assert page.locator("#formula").inner_text() == "No image of these weights"
    assert page.get_by_role("button", name="Save PNG").is_disabled()
    page.get_by_role("tab", name="Wall").click()
    assert not alert.is_visible()
    page.get_by_role("tab", name="Mix").click()
    alert.wait_for()
    page.get_by_role("button", name="Equal").click()  # asked for and shown before: drawn again all the same
    shows(page, "#mixed", even)
    assert not alert.is_visible()
    assert page.get_by_role("button", name="Save PNG").is_enabled()


@pytest.mark.parametrize("loop", ["", "&loop=true"])
def test_studio_layout_is_stable_when_a_morph_arrives(visit: Open, loop: str) -> None:
    page = visit()
    page.locator("#wall[data-drawn]").wait_for()
    held: list[Any] = []
    page.route("**/v1/interpolate", lambda route: held.append(route))
    page.goto(page.url.split("#")[0] + f"#tab=morph&picks=3,17,21{loop}")
    until(page, lambda: len(held) == 2)
    parts = ("#slerp", "#lerp", "#strip")
    before = [page.locator(part).bounding_box() for part in parts]
    for route in held:
        route.continue_()
    page.locator("#slerp[data-frame]").wait_for()
    after = [page.locator(part).bounding_box() for part in parts]
    assert np.allclose([[b["width"], b["height"]] for b in before], [[b["width"], b["height"]] for b in after])
    assert after[2]["width"] == pytest.approx(16 * after[2]["height"])


def test_studio_phone_shows_selected_seeds(visit: Open) -> None:
    phone = {"viewport": {"width": 390, "height": 780}, "has_touch": True, "is_mobile": True}
    page = visit("#seed=482913&picks=482913,482920", **phone)
    page.locator("#wall[data-drawn]").wait_for()
    assert page.locator("#picks span:visible").all_inner_texts() == ["482913", "482920"]
    assert page.locator("#selection").bounding_box()["height"] < 780 / 5


def test_studio_phone_in_landscape_shows_images(visit: Open) -> None:
    page = visit("#picks=3,17", viewport={"width": 844, "height": 390}, has_touch=True, is_mobile=True)
    page.locator("#wall[data-drawn]").wait_for()
    assert not page.locator(".frame").first.evaluate(COVERED)  # a whole row at once, its captions too
    page.locator("#wall").evaluate("e => e.scrollIntoView()")
    columns = page.evaluate("getComputedStyle(document.querySelector('#wall')).gridTemplateColumns.split(' ').length")
    assert not page.locator(".frame").nth(columns).evaluate(COVERED)  # and two when scrolled to


@pytest.mark.parametrize("size", [(1280, 800), (390, 780)])
def test_studio_mix_stays_visible_next_to_its_sliders(visit: Open, size: tuple[int, int]) -> None:
    page = visit(f"#tab=mix&picks={SIXTEEN}", viewport={"width": size[0], "height": size[1]})
    page.locator("#mixed[data-weights]").wait_for()
    page.get_by_label("Weight of N").evaluate("e => e.scrollIntoView({block: 'center'})")
    assert page.get_by_label("Weight of A").bounding_box()["y"] < 0
    for part in ("#mixed", "#formula"):
        assert not page.locator(part).evaluate(COVERED)
    assert not page.get_by_label("Weight of N").evaluate(COVERED)


def test_studio_with_keys_requires_one_first(visit: Open, server: Server) -> None:
    page = visit("#model=plain")
    page.locator("#wall[data-drawn]").wait_for()
    assert page.locator("#server nav a").all_inner_texts() == ["API", "Models", "Metrics"]
    message = "this service requires a key: Authorization: Bearer <key>"
    error = {"error": {"code": "unauthorized", "message": message, "type": "x", "param": "Authorization"}}

    def guard(route: Any) -> None:
        if route.request.headers.get("authorization") == "Bearer sesame":
            route.continue_()
        else:
            route.fulfill(status=401, json=error)

    page.route("**/v1/**", guard)
    page.reload()
    page.get_by_role("alert").get_by_text("This service requires an API key.").wait_for()
    page.get_by_text("Server requires an API key").wait_for()
    assert "Authorization" not in page.locator("body").inner_text()
    assert controls(page) == ["key", "Use it"]
    assert not page.locator("#server nav").is_visible()
    page.get_by_label("API key").fill("sesame")
    page.keyboard.press("Enter")
    shows(page, WALL, server.images("generate", {"model": "plain", "seed": 0, "n": 60}))
    page.get_by_text(re.compile("Server ready")).wait_for()
    assert not page.locator("#server nav").is_visible()
