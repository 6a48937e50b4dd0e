"""The lesson in a browser: every section of its list, with the keyboard alone, on a narrow screen."""

import json
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

import regard
from regard.playground import site
from regard.playground.models import models
from support.browser import until

NARROW = {"width": 360, "height": 740}
ROLES = {"button", "link", "slider", "textbox", "radio", "checkbox", "combobox", "gridcell", "switch", "spinbutton"}

# What the Tab key stands on; a group of which one member is a stop counts as one.
NAMED = """
  const groups = (node) => [...node.closest("section").querySelectorAll("[role=grid], .lines, .swapped, .candidates")];
  const groupOf = (node) => groups(node).findIndex((group) => group.contains(node));
  const nameOf = (node) => [node.closest("[id]").id, node.type, groupOf(node), groupOf(node) >= 0 ? "" :
    node.ariaLabel ?? (node.type === "radio" ? node.name : node.textContent)].join();"""
FOCUSED = f"""() => {{ {NAMED}
  const node = document.activeElement;
  if (!node.closest("section")) return null;
  (window.reached ??= new Set()).add(nameOf(node));
  return {{ kind: node.type ?? node.getAttribute("role") ?? node.localName, pressed: node.ariaPressed,
    of: node.closest(".lines, .order, form")?.className ?? "" }};
}}"""
UNREACHED = f"""(section) => {{ {NAMED}
  return [...section.querySelectorAll("a[href], button:enabled, input, summary, [tabindex='0']")]
    .filter((node) => node.checkVisibility() && node.tabIndex === 0 && !window.reached.has(nameOf(node)))
    .map((node) => node.outerHTML);
}}"""
SHOWN = """() => {
  const node = document.activeElement, section = node.closest("section");
  const values = [...section.querySelectorAll("input")].map((input) => `${input.value} ${input.checked}`);
  const open = [...section.querySelectorAll("details")].map((details) => details.open);
  const stops = [...section.querySelectorAll("[tabindex='0']")].map((stop) => stop.textContent);
  return [section.textContent, values, node.ariaValueText, open, stops].join("|");
}"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lesson") / "site"
    site.write(folder, models())
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/lesson.html"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def opened(browser, address):
    """One page for all tests, which keeps its models; whatever they do, no other host, and nothing on the console."""
    context = browser.new_context(viewport=NARROW)
    page = context.new_page()
    messages, requested = [], []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requested.append(request.url))
    page.goto(address)
    yield SimpleNamespace(page=page, context=context)
    context.close()
    assert not messages, messages
    host = urlsplit(address).netloc
    assert len(requested) > 3
    assert all(urlsplit(url).netloc == host or url.startswith(f"blob:http://{host}/") for url in requested), requested


def section_ids(page):
    links = page.locator(".contents li a")
    return [link.get_attribute("href").removeprefix("#") for link in links.all()]


def settled(page, name):
    """Waits until all of a section is there, and nothing is being computed any more."""
    page.wait_for_selector(f"#{name}[data-built]:not([aria-busy='true'])", timeout=20_000)
    assert page.locator(f"#{name} .problem").count() == 0, page.inner_text(f"#{name} .problem")


def go_to(page, name):
    page.evaluate("name => { location.hash = ''; location.hash = name; }", name)
    until(page, lambda: page.evaluate("document.activeElement.id") == f"{name}-name")
    settled(page, name)


def moved(page, *keys):
    """Presses keys; whether the page shows anything else afterwards."""
    before = page.evaluate(SHOWN)
    for key in keys:
        page.keyboard.press(key)
    for _ in range(40):
        if page.evaluate(SHOWN) != before:
            return True
        page.wait_for_timeout(50)
    return False


def operate(page, focused):
    """Moves what the Tab key stands on, each kind by its own keys."""
    kind = focused["kind"]
    if kind == "range":
        is_last = page.evaluate("document.activeElement.valueAsNumber >= Number(document.activeElement.max)")
        assert moved(page, "ArrowLeft" if is_last else "ArrowRight")
    elif kind == "slider":
        assert moved(page, "ArrowUp")
        assert moved(page, "ArrowLeft")
    elif kind == "gridcell":
        assert moved(page, "ArrowRight")
    elif focused["of"] == "lines":
        is_last = page.evaluate("document.activeElement.nextSibling === null")
        assert moved(page, "ArrowUp" if is_last else "ArrowDown")
    elif kind == "radio":
        assert moved(page, "Space")
    elif kind in ("checkbox", "summary"):
        assert moved(page, "Space")
        assert moved(page, "Space")
    elif kind == "text":
        page.keyboard.press("Control+A")
        page.keyboard.type("0.123" if focused["of"] == "exercise" else "Time flies home")
    elif kind == "button" and focused["pressed"] != "true" and focused["of"] != "order":  # whose are pressed below
        page.keyboard.press("Enter")


def test_every_part_of_every_section_is_moved_by_the_keyboard(opened):
    page = opened.page
    for name in section_ids(page):
        go_to(page, name)
        for _ in range(200):
            page.keyboard.press("Tab")
            focused = page.evaluate(FOCUSED)
            if focused is None:
                break
            operate(page, focused)
        settled(page, name)
        assert page.eval_on_selector(f"#{name}", UNREACHED) == [], name
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"], name


def test_a_long_word_stays_on_the_page(opened):
    page = opened.page
    page.reload()  # every part as it is at first
    for name in ("flies", "contextual", "heads"):
        go_to(page, name)
        for field in page.locator(f"#{name} .sentence-input input").all():
            field.fill("Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft flies")
            field.press("Enter")
        until(page, lambda name=name: "Donaudampf" in page.inner_text(f"#{name}"))
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"], name


def test_a_vector_is_dragged(opened):
    page = opened.page
    go_to(page, "average")
    before = page.inner_text("#average .reads")
    tip = page.locator("#average [role=slider]").first
    tip.scroll_into_view_if_needed()
    box = tip.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] - 30, box["y"] - 20)
    page.mouse.up()
    x, y = map(float, tip.get_attribute("aria-valuetext").split(", "))
    after = page.inner_text("#average .reads")
    assert after != before
    assert f"({x:.2f}, {y:.2f})" in after


def press_to(page, selector):
    """The focus on an element: the test above has shown that the Tab key brings it there."""
    page.locator(selector).focus()


def check(page, form):
    """Presses Check; the verdict, which a live region says."""
    press_to(page, f"{form} button[type=submit]")
    page.keyboard.press("Enter")
    says = page.locator(f"{form} .says")
    assert says.get_attribute("role") == "status"
    return page.get_attribute(form, "data-state"), says.inner_text()


def set_share(page, selector, share):
    press_to(page, selector)
    steps = round(100 * share)
    for key in ("Home", *["PageUp"] * (steps // 10), *["ArrowRight"] * (steps % 10)):
        page.keyboard.press(key)


def answer_as_shown(page, form, kind, says):
    """Gives the answer that the page has said to be right."""
    if kind == "choice":
        labels = [text.strip().removesuffix(".") for text in page.locator(f"{form} label").all_inner_texts()]
        place = labels.index(re.search(r"It is: (.*?)\.?$", says, re.DOTALL)[1])
        press_to(page, f"{form} label:nth-of-type({place + 1}) input")
        page.keyboard.press("Space")
    elif kind == "number":
        press_to(page, f"{form} input")
        page.keyboard.press("Control+A")
        page.keyboard.type(re.search(r"It is (\S+?)(?:\.?$|\s)", says)[1])
    elif kind == "weights":
        shares = page.eval_on_selector_all(f"{form} .compared data", "all => all.map((node) => Number(node.value))")
        for n, share in enumerate(shares[:-1]):
            set_share(page, f"{form} .bars-drawn > div:nth-child({n + 1}) input", share)
    else:
        items = page.locator(f"{form} .order li > span:first-child")
        wanted = re.search(r"It is: (.*)\.$", says, re.DOTALL)[1].replace("\n", " ")
        for place in range(items.count()):
            names = items.all_inner_texts()
            ahead = next(n for n in range(place, len(names)) if wanted.startswith(names[n]))
            wanted = wanted[len(names[ahead]) :].removeprefix(", ")
            for n in range(ahead, place, -1):
                press_to(page, f"{form} .order li:nth-child({n + 1}) button:first-child")
                page.keyboard.press("Enter")


def test_every_exercise_is_answered_and_graded(opened):
    page = opened.page
    count = 0
    for name in section_ids(page):
        go_to(page, name)
        for form in [f"#{form.get_attribute('id')}" for form in page.locator(f"#{name} form").all()]:
            kind = page.get_attribute(form, "data-kind")
            if kind == "choice":
                press_to(page, f"{form} label:nth-of-type(1) input")
                page.keyboard.press("Space")
            elif kind == "number":
                press_to(page, f"{form} input")
                page.keyboard.press("Control+A")
                page.keyboard.type("nonsense")
                state, says = check(page, form)
                assert (state, says[:4]) == ("unanswered", "Give")
                press_to(page, f"{form} input")
                page.keyboard.press("Control+A")
                page.keyboard.type("-987654")
            elif kind == "weights":
                set_share(page, f"{form} .bars-drawn > div:nth-child(2) input", 0.97)
            state, says = check(page, form)
            assert state in ("right", "wrong"), (form, says)
            assert says.startswith({"right": "Right.", "wrong": "Not quite."}[state])
            assert len(page.inner_text(f"{form} .seen")) > 20
            press_to(page, f"{form} button[type=reset]")
            page.keyboard.press("Enter")
            assert page.inner_text(f"{form} .says") == ""
            assert page.evaluate("document.activeElement.form.id") == form[1:]
            answer_as_shown(page, form, kind, says)
            state, says = check(page, form)
            assert state == "right", (form, says)
            count += 1
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"], name
    said = f"Exercises solved: {count} of {count}."
    assert count >= 15
    assert page.locator(".contents .hint").first.text_content().startswith(said)
    page.reload()
    assert page.locator(".contents .hint").first.text_content().startswith(said)


def test_the_right_weights_are_those_of_python(opened):
    page = opened.page
    go_to(page, "flies")
    form = "#exercise-flies-draw"
    set_share(page, f"{form} .bars-drawn > div:nth-child(2) input", 0.5)
    check(page, form)
    shown = page.eval_on_selector_all(f"{form} .compared data", "all => all.map((node) => Number(node.value))")
    expected = regard.Lens().read("Time flies like an arrow").weights(5, 11)[2]
    assert shown == pytest.approx(expected.tolist(), abs=0.01)  # the page's are rounded to 8 bits


def shown_numbers(page, selector):
    return [float(node.get_attribute("value")) for node in page.locator(f"{selector} .bars data").all()]


def test_positions_and_a_trained_head_on_the_real_encoder(opened):
    page = opened.page
    page.reload()
    go_to(page, "positions")
    page.locator("#positions .swapped button").first.press("Enter")
    until(page, lambda: min(shown_numbers(page, "#positions")) > 0.001)  # every vector changes
    page.locator("#positions .options button").last.press("Enter")
    until(page, lambda: max(shown_numbers(page, "#positions")) < 1e-5)  # none does
    go_to(page, "classification-head")
    assert shown_numbers(page, "#classification-head") == [0.5] * 7
    page.locator("#classification-head .slider input").press("End")
    until(
        page,
        lambda: (
            [number > 0.5 for number in shown_numbers(page, "#classification-head")][:6] == [True] * 3 + [False] * 3
        ),
    )
    praise = shown_numbers(page, "#classification-head")[6]
    for box in page.locator("#classification-head .labelled input[type=checkbox]").all():
        box.press("Space")
    until(page, lambda: abs(shown_numbers(page, "#classification-head")[6] - (1 - praise)) < 1e-6)


def unnamed(session):
    """What the accessibility tree holds without a name, of the roles that somebody operates."""
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    operated = [node for node in nodes if not node["ignored"] and node["role"]["value"] in ROLES]
    assert operated
    return [node for node in operated if not node.get("name", {}).get("value", "").strip()]


def test_the_accessibility_tree_and_axe(opened):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    page = opened.page
    page.locator(".contents summary").press("Enter")
    page.locator(".contents input").press("Space")  # all sections on one page
    for name in section_ids(page):
        settled(page, name)
    assert page.locator("main section:visible").count() == len(section_ids(page))
    assert unnamed(opened.context.new_cdp_session(page)) == []
    for theme, rules in (("dark", ["color-contrast"]), ("light", None)):
        page.emulate_media(color_scheme=theme)
        page.emulate_media(reduced_motion="reduce")
        options = {"resultTypes": ["violations"]} | ({"runOnly": rules} if rules else {})
        found = axe.Axe().run(page, options=options).response["violations"]
        serious = [
            (rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found if rule["impact"] != "minor"
        ]
        assert serious == [], json.dumps(serious, indent=1)
    page.locator(".contents input").press("Space")


def test_progress_is_forgotten_and_none_is_needed(opened, browser, address):
    page = opened.page
    page.get_by_role("button", name="Forget my progress").press("Enter")
    assert page.evaluate("localStorage.length") == 0
    assert page.locator(".contents [role=status]").text_content() == "Your progress is forgotten."
    assert re.search(r"solved: 0 of", page.locator(".contents .hint").first.text_content())
    context = browser.new_context()
    context.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new Error('no'); } })")
    other = context.new_page()
    other.goto(f"{address}#average")
    settled(other, "average")
    assert "This browser keeps nothing" in other.inner_text(".contents")
    assert check(other, "#exercise-average-reach")[0] == "unanswered"
    context.close()
