"""The pictures of docs/studio.md, taken anew: `make serve`, then `.venv/bin/python docs/pictures/make.py`.

Needs Chromium (apt-get install chromium). The links name no model, so the service's default is shown.
"""

import io
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

FOLDER = Path(__file__).parent
WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 780}
PICTURES: dict[str, tuple[str, str, dict[str, int], int]] = {  # name: link, colours, size, the morph's frame
    "wall-light": ("#seed=48291&picks=48303,48322", "light", WIDE, 0),
    "morph-dark": ("#tab=morph&picks=3,21,25&class=8", "dark", WIDE, 30),
    "mix-light": ("#tab=mix&picks=3,21,25&weights=1,-0.5,1.25", "light", WIDE, 0),
    "alone-dark": ("#alone=25&picks=3,21", "dark", WIDE, 0),
    "phone-light": ("#seed=7340&picks=7342,7349", "light", PHONE, 0),
    "phone-dark": ("#tab=morph&picks=3,21&class=8", "dark", PHONE, 9),
}


def take(browser: Any, url: str, name: str) -> bytes:
    link, scheme, size, frame = PICTURES[name]
    page = browser.new_page(viewport=size, color_scheme=scheme, reduced_motion="reduce", device_scale_factor=1)
    page.goto(f"{url}/{link}")
    page.get_by_text("Server ready, answers").wait_for()
    page.locator("#stage[aria-busy=false]").wait_for()
    if frame:
        page.locator("#frame").fill(str(frame))
        page.locator("#frame").blur()
    picture = page.screenshot()
    page.close()
    return picture


def main(url: str = "http://127.0.0.1:3000") -> None:
    path = shutil.which("chromium") or sys.exit("this needs Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True)
        for name in PICTURES:
            picture = Image.open(io.BytesIO(take(browser, url, name))).convert("RGB")
            file = FOLDER / f"studio-{name}.png"
            picture.save(file, optimize=True)
            print(f"{file}: {file.stat().st_size // 1000} kB")
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
