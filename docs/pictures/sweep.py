"""The picture of docs/training.md, taken anew: `.venv/bin/python docs/pictures/sweep.py sweeps/NAME/sweep.html`.

Needs Chromium (apt-get install chromium). The page is shown down to its table of all trials.
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

FILE = Path(__file__).with_name("sweep.png")


def main(report: str) -> None:
    path = shutil.which("chromium") or sys.exit("this needs Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True)
        page = browser.new_page(viewport={"width": 1000, "height": 800}, color_scheme="light")
        page.goto(Path(report).resolve().as_uri())
        end = page.get_by_role("heading", name="All trials").bounding_box()
        assert end is not None
        shot = page.screenshot(full_page=True, clip={"x": 0, "y": 0, "width": 1000, "height": end["y"] - 16})
        browser.close()
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
        FILE, optimize=True
    )
    print(f"{FILE}: {FILE.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main(*sys.argv[1:])
