"""Claims about the page for everyone and in bad luck: keyboard, phone, light and dark, and a server that is gone."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.service.browser import Open, Server, shows, until
from tests.support.tiny_generator import write_tiny_generator

pytestmark = pytest.mark.slow
WALL = "#wall canvas"

# Every piece of text in sight, and its contrast with what is behind it (WCAG 2.2, 1.4.3). Disabled controls are exempt.
CONTRASTS = """() => {
  const canvas = Object.assign(document.createElement("canvas"), {width: 1, height: 1}), c = canvas.getContext("2d");
  const rgba = color => { c.clearRect(0, 0, 1, 1); c.fillStyle = color; c.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = c.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255]; };
  const over = (top, under) => [0, 1, 2].map(i => top[i] * top[3] + under[i] * (1 - top[3]));
  const linear = v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const luminance = color => { const [r, g, b] = color.map(linear);
    return .2126 * r + .7152 * g + .0722 * b; };
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !e.checkVisibility()) continue;
    if (e.closest("script, option, .unseen, .skip, :disabled")) continue;
    const lineage = []; for (let p = e; p; p = p.parentElement) lineage.push(p);
    let ground = [255, 255, 255]; let opacity = 1;
    for (const p of lineage.reverse()) { ground = over(rgba(getComputedStyle(p).backgroundColor), ground);
      opacity *= +getComputedStyle(p).opacity; }
    const ink = rgba(getComputedStyle(e).color); ink[3] *= opacity;
    const [light, dark] = [luminance(over(ink, ground)), luminance(ground)].sort((a, b) => b - a);
    found.push([e.className || e.id || e.tagName, walker.currentNode.data.trim(), (light + .05) / (dark + .05)]);
  }
  return found;
}"""
NAMELESS = """() => [...document.querySelectorAll("button, input, select, a, canvas[role=img]")]
  .filter(e => e.checkVisibility() && !(e.ariaLabel || e.innerText?.trim() || e.labels?.[0]?.innerText.trim()))
  .map(e => e.outerHTML)"""
LINKS = ("#picks=3,17", "#picks=3,17&tab=morph", "#picks=3,17&tab=mix", "#alone=5")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_studio_text_is_readable_in_light_and_dark(visit: Open, server: Server, scheme: str) -> None:
    page = visit(color_scheme=scheme)
    shows(page, WALL, server.images("generate", {"seed": 0, "n": 60}))
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(236, 238, 240)", "dark": "rgb(16, 18, 20)"}[scheme]
    for link in LINKS:
        page.goto(f"{server.url}/{link}")
        page.locator("#picks b:visible, #single-name:visible").first.wait_for()
        contrasts = page.evaluate(CONTRASTS)
        assert len(contrasts) > 30
        assert [c for c in contrasts if c[2] < 4.5] == []
        assert page.evaluate(NAMELESS) == []


@pytest.mark.parametrize("width", [320, 390, 768])
def test_studio_fits_a_phone(visit: Open, server: Server, width: int) -> None:
    page = visit(viewport={"width": width, "height": 720}, has_touch=True, is_mobile=True)
    shows(page, WALL, server.images("generate", {"seed": 0, "n": 60}))
    for link in LINKS:
        page.goto(f"{server.url}/{link.replace('17', '17,9007199254740991').replace('=5', '=9007199254740991')}")
        page.locator("#picks b:visible, #single-name:visible").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") == width
        small = page.eval_on_selector_all(
            "button, select, input[type=text], .chips label",
            "e => e.filter(e => e.checkVisibility() && e.getBoundingClientRect().height < 24).map(e => e.outerHTML)",
        )
        assert small == []
    page.goto(f"{server.url}/#seed=7")
    page.locator("#wall .shot").nth(2).tap()
    page.locator("#wall .shot").nth(5).tap()
    page.get_by_role("button", name="Morph").tap()
    shows(page, "#slerp", server.images("generate", {"seed": 9}))


def focused(page: Any) -> str:
    return page.evaluate("document.activeElement.ariaLabel || document.activeElement.id")


def test_studio_works_by_keyboard_only(visit: Open, server: Server) -> None:
    page = visit()
    shows(page, WALL, server.images("generate", {"seed": 0, "n": 60}))
    key = page.keyboard.press
    key("Tab")
    key("Enter")  # the link that skips the settings
    assert focused(page) == "stage"
    stops = []
    while not focused(page).startswith("Seed 0"):
        key("Tab")
        stops.append(focused(page))
    assert len(stops) < 12
    columns = page.evaluate("getComputedStyle(document.querySelector('#wall')).gridTemplateColumns.split(' ').length")
    key("ArrowRight")
    key("Space")
    key("ArrowDown")
    key("Space")
    assert [page.locator("#picks li span").nth(i).inner_text() for i in range(2)] == ["1", str(1 + columns)]
    key("Tab")
    assert focused(page) == f"Copy seed {1 + columns}"
    while focused(page) != "to-morph":
        key("Tab")
        stops.append(focused(page))
    assert len(stops) < 24  # past 60 images
    key("Enter")
    frames = server.images("interpolate", {"keyframes": [1, 1 + columns], "steps": 25, "mode": "slerp"})
    shows(page, "#slerp", frames[:1])
    while focused(page) != "Position on the path":
        key("Shift+Tab")
    for i in (1, 2, 3):
        key("ArrowRight")
        shows(page, "#slerp", frames[i : i + 1])
    while focused(page) != "tab-morph":
        key("Shift+Tab")
    key("ArrowRight")
    assert focused(page) == "tab-mix"
    while not focused(page).startswith("Weight of A"):
        key("Tab")
    key("ArrowLeft")
    terms = [{"seed": 1, "weight": 0.95}, {"seed": 1 + columns, "weight": 1}]
    shows(page, "#mixed", server.images("mix", {"terms": terms})[:1])


def test_studio_retries_a_busy_service_and_shows_errors(visit: Open, server: Server) -> None:
    answers = [
        (503, {"code": "queue_full", "message": "60 images wait already; try again", "type": "unavailable_error"}),
        (429, {"code": "rate_limited", "message": "too many requests", "type": "unavailable_error"}),
    ]

    def refuse(route: Any) -> None:
        if answers:
            status, error = answers.pop(0)
            route.fulfill(status=status, json={"error": {"param": None, **error}}, headers={"Retry-After": "1"})
        else:
            route.continue_()

    page = visit("#seed=5&tab=morph")
    page.route("**/v1/generate", refuse)
    page.get_by_role("tab", name="Wall").click()
    page.get_by_role("alert").get_by_text("60 images wait already; try again. Trying again in 1 s…").wait_for()
    page.get_by_role("alert").get_by_text("Too many requests. Trying again in 1 s…").wait_for()
    shows(page, WALL, server.images("generate", {"seed": 5, "n": 60}))
    page.get_by_role("alert").wait_for(state="hidden")
    answers.append((422, {"code": "x", "message": "seeds: no such luck", "type": "invalid_request_error"}))
    page.get_by_role("button", name="Later seeds").click()
    page.get_by_role("alert").get_by_text("Seeds: no such luck").wait_for()
    page.get_by_role("button", name="Try again").click()
    shows(page, WALL, server.images("generate", {"seed": 65, "n": 60}))


def test_studio_follows_models_and_server_restarts(visit: Open, tmp_path: Path) -> None:
    write_tiny_generator(tmp_path / "a.onnx", name="first", size=8)
    server = Server(tmp_path).start()
    try:
        page = visit("#picks=1,2", at=server.url)
        before = server.images("generate", {"seed": 0, "n": 60})
        shows(page, WALL, before)

        write_tiny_generator(tmp_path / "a.onnx", name="first", size=8, seed=9)
        page.get_by_role("alert").get_by_text("first was replaced on the server").wait_for()
        after = server.images("generate", {"seed": 0, "n": 60})
        assert (after != before).any()
        shows(page, WALL, after)
        page.get_by_role("button", name="Dismiss").click()
        page.get_by_role("alert").wait_for(state="hidden")

        write_tiny_generator(tmp_path / "b.onnx", name="second", size=8, seed=3)
        until(page, lambda: httpx.get(f"{server.url}/v1/models/second").status_code == 200)
        (tmp_path / "a.onnx").unlink()
        until(page, lambda: httpx.get(f"{server.url}/v1/models/first").status_code == 404)
        page.get_by_role("button", name="Another wall").click()
        page.get_by_role("heading", name="first is not served here").wait_for()
        until(page, lambda: "second" in page.locator("#model").inner_text())
        page.get_by_label("Model", exact=True).select_option("second")
        seed = int(page.input_value("#seed"))
        images = server.images("generate", {"seed": seed, "n": 60})
        shows(page, WALL, images)
        page.get_by_role("alert").wait_for(state="hidden")

        server.stop()
        page.get_by_role("alert").get_by_text("The service does not answer.").wait_for()
        page.get_by_text("Server not answering").wait_for()
        page.get_by_role("button", name="Later seeds").click()
        server.start()
        later = server.images("generate", {"seed": seed + 60, "n": 60})
        shows(page, WALL, later)
        page.get_by_role("alert").wait_for(state="hidden")
        page.get_by_text(re.compile("Server ready")).wait_for()

        server.stop()
        server.environment["ATELIER_API_KEYS"] = "sesame"
        server.start()
        page.reload()
        page.get_by_role("alert").get_by_text("This service requires an API key.").wait_for()
        page.get_by_label("API key").fill("mellon")
        page.get_by_role("button", name="Use it").click()
        page.get_by_role("alert").get_by_text("That API key was not accepted.").wait_for()
        page.get_by_label("API key").fill("sesame")
        page.get_by_role("button", name="Use it").click()
        shows(page, WALL, later)
    finally:
        server.stop()
