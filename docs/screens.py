"""The pictures of the viewer in README.md and view.md, as a browser shows it.

python docs/screens.py [FOLDER]
"""

import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

BANK = "He sat down on the bank of the river and counted the money that the bank had lent him, then walked home."
LONG = " ".join(f"{BANK} It was the {n}th of the month, and nobody else had noticed." for n in range(4, 15))

SCREENS = {
    "sentence": "view=sentence&text=Time+flies+like+an+arrow&word=2&layer=5",
    "heads": "view=heads&text=Time+flies+like+an+arrow",
    "map": f"view=map&layer=0&head=4&text={LONG}",
    "walk": "view=walk&text=Time+flies+like+an+arrow&word=2&layer=5&head=11",
    "compare": "view=compare",
    "dark": f"view=map&layer=2&head=1&word=4&text={BANK}&theme=dark",
}


def main(folder):
    """Serves, looks, and saves."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    command = [sys.executable, "-c", "import regard.cli; regard.cli.main()", "serve", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address = process.stdout.readline().strip()
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            for name, link in SCREENS.items():
                page = browser.new_page(viewport={"width": 1120, "height": 1000})
                page.goto(f"{address}#{link}")
                page.wait_for_selector("#viewer[data-drawn]")
                page.evaluate("document.activeElement.blur()")
                # The window becomes as high as the view; the map would grow with it.
                page.evaluate("document.getElementById('chart').style.maxWidth = '50rem'")
                end = page.evaluate("document.getElementById('exports').getBoundingClientRect().top")
                page.set_viewport_size({"width": 1120, "height": min(1360, round(end))})
                page.wait_for_timeout(1000)
                page.screenshot(path=folder / f"viewer-{name}.png")
                page.close()
            browser.close()
    finally:
        process.terminate()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
