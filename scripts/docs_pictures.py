"""Take the screenshots in docs/images with Chromium (`apt-get install chromium`).

python scripts/docs_pictures.py studio http://127.0.0.1:3000     # in front of `make serve`
python scripts/docs_pictures.py report report/report.html
python scripts/docs_pictures.py sweep sweeps/NAME/sweep.html
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "images"
WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 780}
# name: link, color scheme, size, frame of the morph. The links name no model, so the service's default is shown.
STUDIO: dict[str, tuple[str, str, dict[str, int], int]] = {
    "wall-light": ("#seed=48291&picks=48303,48322", "light", WIDE, 0),
    "morph-dark": ("#tab=morph&picks=3,21,25&class=8", "dark", WIDE, 30),
    "mix-light": ("#tab=mix&picks=3,21,25&weights=1,-0.5,1.25", "light", WIDE, 0),
    "alone-dark": ("#alone=25&picks=3,21", "dark", WIDE, 0),
    "phone-light": ("#seed=7340&picks=7342,7349", "light", PHONE, 0),
    "phone-dark": ("#tab=morph&picks=3,21&class=8", "dark", PHONE, 9),
}
# name: width of the page, heading above which the picture ends
PAGES = {"report": (1080, "How it was made"), "sweep": (1000, "All trials")}


def studio(browser: Any, url: str) -> None:
    """Take each view of the studio at `url`."""
    for name, (link, scheme, size, frame) in STUDIO.items():
        page = browser.new_page(viewport=size, color_scheme=scheme, reduced_motion="reduce", device_scale_factor=1)
        page.goto(f"{url}/{link}")
        page.get_by_text("Server ready, answers").wait_for()
        page.locator("#stage[aria-busy=false]").wait_for()
        if frame:
            page.locator("#frame").fill(str(frame))
            page.locator("#frame").blur()
        save(Image.open(io.BytesIO(page.screenshot())).convert("RGB"), f"studio-{name}")
        page.close()


def document(browser: Any, name: str, path: str) -> None:
    """Take the upper part of a report or of a sweep's page."""
    width, heading = PAGES[name]
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme="light")
    page.goto(Path(path).resolve().as_uri())
    end = page.get_by_role("heading", name=heading).bounding_box()
    if end is None:
        sys.exit(f"{path} has no heading {heading!r}")
    shot = page.screenshot(full_page=True, clip={"x": 0, "y": 0, "width": width, "height": end["y"] - 16})
    colors = Image.open(io.BytesIO(shot)).convert("RGB")
    save(colors.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE), name)


def save(picture: Image.Image, name: str) -> None:
    """Write one picture into docs/images and print its size."""
    file = FOLDER / f"{name}.png"
    picture.save(file, optimize=True)
    print(f"{file}: {file.stat().st_size // 1000} kB")


def main(arguments: list[str]) -> None:
    """Run the command line above."""
    if len(arguments) != 2 or arguments[0] not in ("studio", *PAGES):
        sys.exit(__doc__)
    name, target = arguments
    path = shutil.which("chromium") or sys.exit("this needs Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True)
        if name == "studio":
            studio(browser, target)
        else:
            document(browser, name, target)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
