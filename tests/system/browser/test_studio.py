"""Claims about the page in a real Chromium, in front of a real service: what is clicked, and the pixels that appear."""

import io
import re
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageSequence

from tests.support.service.browser import Open, Server, shows, until

pytestmark = pytest.mark.slow
WALL = "#wall canvas"


def posts(page: Any, path: str) -> list[Any]:
    return [r for r in page.asked if r.method == "POST" and r.url.endswith(path)]


def test_studio_grid_is_one_request_of_its_seeds(visit: Open, server: Server) -> None:
    page = visit()
    shows(page, WALL, server.images("generate", {"seed": 0, "n": 60}))
    assert page.locator("#wall .seed").all_inner_texts() == [str(i) for i in range(60)]
    labels = httpx.post(f"{server.url}/v1/generate", json={"seed": 0, "n": 60}).json()["data"]
    assert page.locator(".of-class").all_inner_texts() == [["dot", "line", "ring"][d["label"]] for d in labels]
    assert page.eval_on_selector(WALL, "c => getComputedStyle(c).imageRendering") == "pixelated"
    assert len(posts(page, "/v1/generate")) == 1

    page.get_by_role("button", name="Another wall").click()
    page.locator("#wall[data-drawn]:not([data-drawn='0'])").wait_for()
    seed = int(page.input_value("#seed"))
    assert f"seed={seed}" in page.url
    shows(page, WALL, server.images("generate", {"seed": seed, "n": 60}))
    page.get_by_role("button", name="Later seeds").click()
    shows(page, WALL, server.images("generate", {"seed": seed + 60, "n": 60}))
    page.fill("#seed", str(2**53 - 1))
    page.press("#seed", "Enter")
    shows(page, WALL, server.images("generate", {"seed": 2**53 - 60, "n": 60}))
    assert len(posts(page, "/v1/generate")) == 4
    page.go_back()
    shows(page, WALL, server.images("generate", {"seed": seed + 60, "n": 60}))
    page.fill("#seed", "1e3")
    page.press("#seed", "Enter")
    assert page.locator("#announcement.toast").inner_text() == f"A seed is a whole number from 0 to {2**53 - 1}"


def test_studio_describes_a_model_and_switches(visit: Open, server: Server) -> None:
    page = visit()
    shows(page, WALL, server.images("generate", {"seed": 0, "n": 60}))
    facts = page.locator("#facts").inner_text().split("\n")
    reported = dict(zip(facts[::2], facts[1::2], strict=True))
    model = httpx.get(f"{server.url}/v1/models/classy").json()
    assert (reported["Trained on"], reported["Images seen"], reported["fd_classifier10k"]) == (
        "shapes",
        "123,456",
        "9.45",
    )
    assert (reported["Image"], reported["Latent"], reported["Digest"]) == (
        "16 × 16, gray",
        "8 normal numbers",
        model["digest"][:12],
    )
    page.get_by_label("Model", exact=True).select_option("plain")
    shows(page, WALL, server.images("generate", {"model": "plain", "seed": 0, "n": 60}))
    assert not page.locator("#classes").is_visible()
    assert "not measured yet" in page.locator("#facts").inner_text()
    assert page.get_by_label("Truncation").is_visible()
    page.get_by_label("Model", exact=True).select_option("boxed")
    shows(page, WALL, server.images("generate", {"model": "boxed", "seed": 0, "n": 60}))
    assert not page.get_by_label("Truncation").is_visible()


def test_studio_seed_link_restores_the_image(visit: Open, server: Server) -> None:
    page = visit("#seed=100&class=1", permissions=["clipboard-read", "clipboard-write"])
    shows(page, WALL, server.images("generate", {"seed": 100, "n": 60, "labels": [1]}))
    page.get_by_role("button", name="Copy seed 107").click()
    page.get_by_text("Seed 107 copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "107"
    page.get_by_role("listitem").filter(has_text="107").get_by_role("link").click()
    one = server.images("generate", {"seed": 107, "labels": [1]})
    shows(page, "#single-image", one)
    page.get_by_role("button", name="Copy link").click()
    page.get_by_text("Link copied").wait_for()
    link = page.evaluate("navigator.clipboard.readText()")
    other = visit(link.removeprefix(server.url + "/"))
    shows(other, "#single-image", one)
    shows(other, "#class-list canvas", server.images("generate", {"seeds": [107] * 3, "labels": [0, 1, 2]}))
    other.get_by_role("button", name="Class ring").click()
    shows(other, "#single-image", server.images("generate", {"seed": 107, "labels": [2]}))
    other.get_by_role("button", name="Back to the wall").click()
    shows(other, WALL, server.images("generate", {"seed": 100, "n": 60, "labels": [2]}))
    with page.expect_download() as download:
        page.get_by_role("button", name="Save PNG").click()
    assert download.value.suggested_filename == "classy-seed-107-class-1.png"
    saved = np.asarray(Image.open(download.value.path()))
    np.testing.assert_array_equal(saved[::16, ::16], one[0, :, :, 0])


def test_studio_grid_follows_class_and_truncation(visit: Open, server: Server) -> None:
    page = visit()
    shows(page, WALL, server.images("generate", {"seed": 0, "n": 60}))
    page.get_by_role("radio", name="line").check()
    shows(page, WALL, server.images("generate", {"seed": 0, "n": 60, "labels": [1]}))
    slider = page.get_by_label("Truncation")
    slider.focus()
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    assert page.locator("#truncation-value").inner_text() == "2.9"
    shows(page, WALL, server.images("generate", {"seed": 0, "n": 60, "labels": [1], "truncation": 2.9}))
    page.wait_for_url(re.compile(r"class=1&truncation=2\.9"))
    page.keyboard.press("End")
    page.get_by_role("radio", name="by seed").check()
    shows(page, WALL, server.images("generate", {"seed": 0, "n": 60}))


def test_studio_dragged_slider_ends_on_its_last_value(visit: Open, server: Server) -> None:
    page = visit()
    shows(page, WALL, server.images("generate", {"seed": 0, "n": 60}))
    before = len(posts(page, "/v1/generate"))
    held: list[Any] = []
    page.route("**/v1/generate", lambda route: route.continue_() if held else held.append(route))
    page.evaluate("""() => { const slider = document.querySelector("#truncation"); for (let t = 290; t >= 50; t -= 2) {
        slider.value = t / 100; slider.dispatchEvent(new Event("input")); } }""")
    page.wait_for_timeout(100)
    assert [route.request.post_data_json["truncation"] for route in held] == [2.9]
    held[0].continue_()
    shows(page, WALL, server.images("generate", {"seed": 0, "n": 60, "truncation": 0.5}))
    assert len(posts(page, "/v1/generate")) == before + 2  # the first and the newest, of 121


def pick(page: Any, *seeds: int) -> None:
    for seed in seeds:
        page.get_by_role("button", name=re.compile(rf"^Seed {seed}(,|$)")).click()


def test_studio_morph_shows_the_services_frames(visit: Open, server: Server) -> None:
    page = visit("#model=plain")
    shows(page, WALL, server.images("generate", {"model": "plain", "seed": 0, "n": 60}))
    assert page.get_by_role("button", name="Morph").is_disabled()
    pick(page, 4, 9)
    shows(page, "#picks canvas", server.images("generate", {"model": "plain", "seeds": [4, 9]}))
    page.get_by_role("button", name="Morph").click()
    body = {"model": "plain", "keyframes": [4, 9], "steps": 25}
    frames = {mode: server.images("interpolate", {**body, "mode": mode}) for mode in ("slerp", "lerp")}
    assert (frames["slerp"] != frames["lerp"]).any()
    for i in (0, 7, 12, 24):
        page.locator("#frame").fill(str(i))
        shows(page, "#slerp", frames["slerp"][i : i + 1])
        shows(page, "#lerp", frames["lerp"][i : i + 1])
    assert page.locator("#frame").get_attribute("aria-valuetext") == "at B"
    strip = np.concatenate([frames["slerp"][round(i * 24 / 15)] for i in range(16)], axis=1)
    shows(page, "#strip", strip[None])

    page.get_by_label("Show").select_option("lerp")
    assert page.locator("#lerp").is_visible()
    assert not page.locator("#slerp").is_visible()
    for form, loop in (("gif", False), ("webp", True)):
        page.get_by_label("back to the start").set_checked(loop)
        with page.expect_download() as download:
            page.get_by_role("button", name=form, exact=False).click()
        assert download.value.suggested_filename == f"plain-lerp-4-9.{form}"
        film = Image.open(io.BytesIO(Path(download.value.path()).read_bytes()))
        saved = np.stack([np.asarray(f.convert("RGB")) for f in ImageSequence.Iterator(film)])[:, ::16, ::16]
        wanted = server.images("interpolate", {**body, "mode": "lerp", "loop": loop})
        assert saved.shape == wanted.shape
        limit = 0 if form == "webp" else 60  # a GIF has 256 colors
        assert np.abs(saved.astype(int) - wanted).max() <= limit
        assert film.info.get("loop", 1) == (0 if loop else 1)


def test_studio_morph_respects_reduced_motion(visit: Open) -> None:
    page = visit("#model=plain&picks=4,9", reduced_motion="no-preference")
    page.get_by_role("button", name="Morph").click()
    until(page, lambda: int(page.input_value("#frame")) > 2)
    page.get_by_role("button", name="Pause").click()
    still = page.locator("#frame").input_value()
    page.wait_for_timeout(250)
    assert page.locator("#frame").input_value() == still
    page.get_by_role("button", name="Play").click()
    until(page, lambda: page.input_value("#frame") != still)
    calm = visit("#model=plain&picks=4,9")
    calm.get_by_role("button", name="Morph").click()
    calm.locator("#slerp[data-frame='0']").wait_for()
    calm.wait_for_timeout(300)
    assert calm.locator("#frame").input_value() == "0"


def test_studio_mix_equals_the_services(visit: Open, server: Server) -> None:
    page = visit("#picks=3,17,25")
    page.get_by_role("button", name="Mix").click()

    def mixed(*weights: float, **more: Any) -> np.ndarray:
        terms = [{"seed": s, "weight": w} for s, w in zip((3, 17, 25), weights, strict=True)]
        return server.images("mix", {"terms": terms, **more})

    shows(page, "#mixed", mixed(1, 1, 1)[:1])
    shows(page, "#terms canvas", mixed(1, 1, 1)[1:])
    page.get_by_label("Weight of B, seed 17").fill("-0.5")
    shows(page, "#mixed", mixed(1, -0.5, 1)[:1])
    assert page.locator("#formula").inner_text().startswith("A − 0.5 B + C, class ")
    page.get_by_label("keep the length").uncheck()
    shows(page, "#mixed", mixed(1, -0.5, 1, normalize=False)[:1])
    page.get_by_role("button", name="A − B + C").click()
    shows(page, "#mixed", mixed(1, -1, 1, normalize=False)[:1])
    page.get_by_role("radio", name="ring").check()
    terms = [{"seed": s, "weight": w, "label": 2} for s, w in ((3, 1), (17, -1), (25, 1))]
    body = {"terms": terms, "labels": [2], "normalize": False}
    shows(page, "#mixed", server.images("mix", body)[:1])
    with page.expect_download() as download:
        page.get_by_role("button", name="Save PNG").click()
    saved = np.asarray(Image.open(download.value.path()))
    np.testing.assert_array_equal(saved[::16, ::16], server.images("mix", body)[0, :, :, 0])

    page.get_by_label("keep the length").check()
    for letter in "ABC":
        page.get_by_label(f"Weight of {letter}").fill("0")
    page.get_by_role("alert").get_by_text("These weights cancel out").wait_for()
    page.get_by_role("button", name="Equal").click()
    page.get_by_role("alert").wait_for(state="hidden")


def test_studio_link_restores_every_option(visit: Open, server: Server) -> None:
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy seed 0", exact=True).wait_for()
    pick(page, 2, 5)
    page.get_by_label("Add seed").fill("9007199254740991")
    page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_role("radio", name="dot").check()
    page.get_by_label("Truncation").fill("1.1")
    page.get_by_role("tab", name="Mix").click()
    page.get_by_label("Weight of B").fill("-1.25")
    seeds = (2, 5, 2**53 - 1)
    terms = [{"seed": s, "weight": w, "label": 0} for s, w in zip(seeds, (1, -1.25, 1), strict=True)]
    image = server.images("mix", {"terms": terms, "labels": [0], "truncation": 1.1})
    shows(page, "#mixed", image[:1])
    page.get_by_role("button", name="Copy link").click()
    page.get_by_text("Link copied").wait_for()
    link = page.evaluate("navigator.clipboard.readText()").removeprefix(server.url + "/")

    other = visit(link)
    shows(other, "#mixed", image[:1])
    shows(other, "#picks canvas", image[1:])
    assert other.get_by_role("tab", name="Mix").get_attribute("aria-selected") == "true"
    assert other.get_by_label("Truncation").input_value() == "1.1"
    other.get_by_role("tab", name="Wall").click()
    shows(other, WALL, server.images("generate", {"seed": 0, "n": 60, "labels": [0], "truncation": 1.1}))
    assert other.locator(".frame:not([data-pick=''])").evaluate_all("f => f.map(e => e.dataset.seed)") == ["2", "5"]
    older = visit(re.sub("digest=[0-9a-f]+", "digest=0123456789ab", link))
    older.get_by_role("alert").get_by_text("made with an earlier version of classy").wait_for()


def test_studio_link_with_invalid_values_ignores_them(visit: Open, server: Server) -> None:
    page = visit("#seed=-1&class=7&truncation=nan&tab=x&picks=1e3,,0x10,5,5&weights=9&view=%3Cb%3E&alone=1.5")
    shows(page, WALL, server.images("generate", {"seed": 0, "n": 60}))
    assert page.locator("#picks li span").all_inner_texts() == ["5"]


def test_studio_shows_the_status_of_the_server(visit: Open, server: Server) -> None:
    for seed in range(20):
        server.images("generate", {"seed": seed, "n": 8})
    page = visit()
    page.get_by_text(re.compile(r"Server ready, answers in [\d.]+ ms")).wait_for()
    lines = page.locator("#server-facts").inner_text().split("\n")
    reported = dict(zip(lines[::2], lines[1::2], strict=True))
    status = httpx.get(f"{server.url}/v1/status").json()
    assert float(reported["Median response"].removesuffix(" ms")) == pytest.approx(
        status["latency_ms"]["p50"], rel=0.25, abs=1
    )
    assert float(reported["Images per second"]) > 1
    assert reported["Images waiting"].isdigit()
    busy = {**status, "queue_rows": 321}
    page.route("**/v1/status", lambda route: route.fulfill(json=busy))
    page.get_by_text("Server ready, 321 images being generated").wait_for()
    page.get_by_text("Server busy, 321 images waiting").wait_for()
    page.route(
        "**/v1/status", lambda route: route.fulfill(json={**status, "status": "not_ready", "reason": "warming up"})
    )
    page.get_by_text("Server not ready: warming up").wait_for()
