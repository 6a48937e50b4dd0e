"""The pictures of the viewer, the lesson and the atlas in README.md and the guides, as a browser shows them.

python docs/screens.py [FOLDER]
"""

import shutil
import subprocess
import sys
import tempfile
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
DECODER, OF_DECODER = "SmolLM2-135M-Instruct", {"predictions": "view=predictions&text=The+capital+of+France+is+Paris"}

QUESTION = "On which day is the museum closed?"
NOTES = """The lighthouse was built in 1874 by Anna Berg.

Its lamp is lit by the keeper, Tom Hale, who lives in the village.

The key to the tower hangs behind the stove in the kitchen.

In winter, a boat brings bread and oil every Friday.

The museum in the old boathouse is closed on Mondays.
"""


def main(folder):
    """Serves, looks, and saves."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        served(browser, folder, SCREENS)
        served(browser, folder, OF_DECODER, "--model", DECODER)
        answer(browser, folder)
        atlas(browser, folder)
        lesson(browser, folder)
        browser.close()


def regard(*arguments):
    """A command line of regard."""
    return [sys.executable, "-c", "import regard.cli; regard.cli.main()", *arguments]


def served(browser, folder, screens, *arguments):
    """Pictures of the views."""
    process = subprocess.Popen(regard("serve", "--port", "0", *arguments), stdout=subprocess.PIPE, text=True)
    try:
        address = process.stdout.readline().strip()
        for name, link in screens.items():
            page = browser.new_page(viewport={"width": 1120, "height": 1000})
            page.goto(f"{address}#{link}")
            page.wait_for_selector("#viewer[data-drawn]", timeout=120_000)
            page.evaluate("document.activeElement.blur()")
            # The window becomes as high as the view; the map would grow with it.
            page.evaluate("document.getElementById('chart').style.maxWidth = '50rem'")
            end = page.evaluate("document.getElementById('exports').getBoundingClientRect().top")
            page.set_viewport_size({"width": 1120, "height": min(1420, round(end))})
            page.wait_for_timeout(1000)
            page.screenshot(path=folder / f"viewer-{name}.png")
            page.close()
    finally:
        process.terminate()


def answer(browser, folder):
    """The page of an answer."""
    with tempfile.TemporaryDirectory() as temporary:
        notes, saved = Path(temporary, "notes.txt"), Path(temporary, "answer.html")
        notes.write_text(NOTES)
        subprocess.run(
            regard("ask", QUESTION, notes.name, "--save", saved.name), cwd=temporary, check=True, capture_output=True
        )
        page = browser.new_page(viewport={"width": 1120, "height": 740})
        page.goto(saved.as_uri())
        page.wait_for_timeout(500)
        page.screenshot(path=folder / "ask.png")
        page.close()


def atlas(browser, folder):
    """The atlas of a decoder, with its induction heads."""
    with tempfile.TemporaryDirectory() as temporary:
        saved = Path(temporary, "atlas.html")
        subprocess.run(regard("atlas", DECODER, "--save", str(saved)), check=True, capture_output=True)
        page = browser.new_page(viewport={"width": 1280, "height": 1100})
        page.goto(f"{saved.as_uri()}#view=atlas&score=induction&layer=18&head=6")
        page.wait_for_selector("#viewer[data-drawn]")
        end = page.evaluate("document.getElementById('exports').getBoundingClientRect().top")
        page.set_viewport_size({"width": 1280, "height": min(1500, round(end))})
        page.screenshot(path=folder / "viewer-atlas.png")
        page.close()


def lesson(browser, folder):
    """The lesson, where a word looks at its neighbours."""
    with tempfile.TemporaryDirectory() as temporary:
        site = Path(temporary, "site")
        subprocess.run(regard("playground", "--out", str(site)), check=True, capture_output=True)
        page = browser.new_page(viewport={"width": 1120, "height": 700})
        page.goto((site / "lesson.html").as_uri())
        heading = page.get_by_role("heading", name="A supermarket")
        heading.wait_for(timeout=60_000)
        page.wait_for_timeout(3000)  # until the model has read
        heading.evaluate("heading => heading.scrollIntoView()")
        page.wait_for_timeout(500)
        page.screenshot(path=folder / "lesson.png")
        page.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
