// The page of the lesson: its sections, one after another or all on one page, and the way through them.

import { el } from "../ui/dom.js";
import { percent } from "../ui/format.js";
import { exerciseForm } from "./exercise.js";
import { modelsOf } from "./models.js";
import { plainLink } from "./plain-lines.js";
import { openProgress } from "./progress.js";

/** @import { Child, Lesson, Section } from "./types.js" */
/** @import { Progress } from "./progress.js" */

const NAMES = { encoder: "the encoder", stories: "the small decoder", dates: "the translator of dates" };

/**
 * Puts the lesson into the page.
 * @param {HTMLElement} root
 * @param {Section[]} sections
 */
export function mountLesson(root, sections) {
  const progress = openProgress();
  const frame = frameOf(sections);
  root.replaceChildren(frame.header, frame.contents, frame.main);
  const models = modelsOf((name, share) => showOpening(frame.opening, name, share));
  const pages = sections.map((section, n) => sectionPage(section, n, sections, models, progress, () => update()));

  const current = () =>
    Math.max(
      0,
      sections.findIndex(({ id }) => `#${id}` === location.hash),
    );
  const update = () => showProgress(frame, sections, progress, current());
  /** @param {boolean} moved whether the reader went there, so that it is read from its heading on */
  const show = (moved) => {
    const { whole } = progress.kept;
    for (const [n, page] of pages.entries()) {
      page.node.hidden = !whole && n !== current();
      if (!page.node.hidden) page.build();
    }
    frame.main.classList.toggle("whole", whole);
    update();
    document.title = `${sections[current()].title} · Self-attention from scratch`;
    if (moved) pages[current()].heading.focus();
    if (moved && !whole) scrollTo({ top: 0 });
  };
  frame.main.append(...pages.map(({ node }) => node));
  addEventListener("hashchange", () => show(true));
  frame.whole.checked = progress.kept.whole;
  frame.whole.addEventListener("change", () => {
    progress.keep({ whole: frame.whole.checked });
    show(false);
  });
  frame.forget.addEventListener("click", () => {
    progress.forget();
    update();
    frame.status.textContent = "Your progress is forgotten.";
  });
  themes(root, frame.theme, progress);
  show(Boolean(location.hash));
}

/**
 * The parts around the sections.
 * @param {Section[]} sections
 */
function frameOf(sections) {
  const whole = el("input", { type: "checkbox" });
  const forget = el("button", { type: "button", class: "quiet" }, "Forget my progress");
  const theme = el("button", { type: "button", class: "quiet theme" });
  const status = el("p", { class: "hint", role: "status" });
  const said = el("p", { class: "hint" });
  const links = sections.map(({ id, title }) =>
    el("a", { href: `#${id}` }, el("span", {}, title), el("span", { class: "done" })),
  );
  const opening = el("div", { class: "opening", role: "status" });
  const list = el("ol", {}, ...links.map((link) => el("li", {}, link)));
  const details = el(
    "details",
    { open: matchMedia("(min-width: 60rem)").matches },
    el("summary", {}, "Sections"),
    list,
  );
  details.append(
    said,
    el("label", {}, whole, " All sections on one page"),
    el("p", { class: "buttons" }, forget),
    status,
  );
  const header = el("header", {}, el("h1", {}, "Self-attention from scratch"));
  const elsewhere = el("a", { href: "index.html" }, "Playground");
  header.append(el("nav", { "aria-label": "Elsewhere" }, elsewhere), theme);
  const contents = el("nav", { class: "contents", "aria-label": "Sections" }, details);
  return { header, contents, main: el("main", {}, opening), opening, links, said, status, whole, forget, theme };
}

/**
 * The section's page, empty until it is built.
 * @param {Section} section
 * @param {number} n
 * @param {Section[]} sections
 * @param {Pick<Lesson, "model" | "read">} models
 * @param {Progress} progress
 * @param {() => void} answered
 */
function sectionPage(section, n, sections, models, progress, answered) {
  const heading = el("h2", { id: `${section.id}-name`, tabindex: -1 }, section.title);
  const node = el("section", { id: section.id, "aria-labelledby": heading.id, hidden: true }, heading);
  let isBuilt = false;
  const build = async () => {
    if (isBuilt) return;
    isBuilt = true;
    const later = laterIn(node);
    /** @type {Set<string>} */
    const placed = new Set();
    /** @param {string} id */
    const exercise = (id) => {
      const wanted = section.exercises.find((other) => other.id === id);
      if (!wanted || placed.has(id)) throw new Error(`lesson: ${section.id}: no exercise ${id}, or placed twice`);
      placed.add(id);
      return later(async () => [
        exerciseForm(id, await wanted.prepare(models), (state) => {
          progress.answered(id, state);
          answered();
        }),
      ]);
    };
    const content = await section.build({ ...models, later, exercise });
    const rest = section.exercises.filter(({ id }) => !placed.has(id)).map(({ id }) => exercise(id));
    node.append(...content, ...rest, footOf(section, n, sections));
    node.dataset.built = "";
  };
  return { node, heading, build };
}

/**
 * Places that are filled later. While some are empty, the section is busy.
 * @param {HTMLElement} node
 */
function laterIn(node) {
  let waiting = 0;
  /** @param {number} change */
  const count = (change) => {
    waiting += change;
    node.setAttribute("aria-busy", String(waiting > 0));
  };
  /** @param {() => Promise<Child[]>} content @returns {HTMLElement} */
  return (content) => {
    const place = el("div", { class: "later" }, el("p", { class: "hint" }, "Computing …"));
    const fill = async () => {
      count(1);
      try {
        place.replaceChildren(...(await content()));
      } catch (error) {
        const again = el("button", { type: "button", class: "quiet" }, "Try again");
        again.addEventListener("click", fill);
        const says = error instanceof Error ? error.message : String(error);
        place.replaceChildren(el("p", { class: "problem", role: "alert" }, says, " ", again));
      }
      count(-1);
    };
    fill();
    return place;
  };
}

/**
 * What stands under a section: its lines in plain Python, and the way on.
 * @param {Section} section
 * @param {number} n
 * @param {Section[]} sections
 */
function footOf({ title, plain = [] }, n, sections) {
  const lines = plain.flatMap((idea) => plainLink(idea) ?? []);
  const foot = el("footer");
  if (lines.length) {
    const links = lines.map(({ href, name, says }) =>
      el("li", {}, el("a", { href }, el("code", {}, name)), `: ${says}`),
    );
    foot.append(el("p", {}, "The same in plain Python, without a library:"), el("ul", { class: "plain" }, ...links));
  }
  const way = el("nav", { class: "way", "aria-label": `Before and after: ${title}` });
  for (const [step, name] of /** @type {const} */ ([
    [-1, "Previous"],
    [1, "Next"],
  ])) {
    const other = sections[n + step];
    if (other)
      way.append(el("a", { href: `#${other.id}`, rel: name === "Next" ? "next" : "prev" }, `${name}: ${other.title}`));
  }
  foot.append(way);
  return foot;
}

/**
 * @param {ReturnType<typeof frameOf>} frame
 * @param {Section[]} sections
 * @param {Progress} progress
 * @param {number} current
 */
function showProgress(frame, sections, progress, current) {
  const { exercises } = progress.kept;
  let [done, all] = [0, 0];
  for (const [n, { exercises: ofSection }] of sections.entries()) {
    const right = ofSection.filter(({ id }) => exercises[id] === "right").length;
    [done, all] = [done + right, all + ofSection.length];
    const link = frame.links[n];
    if (n === current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    const says = ofSection.length ? `${right} of ${ofSection.length}` : "";
    link.lastChild.textContent = says;
    link.lastChild.classList.toggle("all", ofSection.length > 0 && right === ofSection.length);
  }
  const where = progress.lasts
    ? "Kept in this browser, and nowhere else."
    : "This browser keeps nothing for this page: it lasts until the page is closed.";
  frame.said.textContent = `Exercises solved: ${done} of ${all}. ${where}`;
}

/**
 * How much of a model is there.
 * @param {HTMLElement} node
 * @param {string} name
 * @param {number | null} share
 */
function showOpening(node, name, share) {
  const line = node.querySelector(`[data-model="${name}"]`) ?? node.appendChild(el("p", { "data-model": name }));
  if (share === 1) {
    line.remove();
    return;
  }
  const says = NAMES[/** @type {keyof typeof NAMES} */ (name)] ?? name;
  const bar = el("progress", { max: 1, value: share, "aria-label": `Opening ${says}` });
  line.replaceChildren(`Opening ${says}${share === null ? " …" : `: ${percent(share)}`} `, bar);
}

/**
 * Light or dark, as the system has it until it is chosen.
 * @param {HTMLElement} root
 * @param {HTMLButtonElement} button
 * @param {Progress} progress
 */
function themes(root, button, progress) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (progress.kept.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const apply = () => {
    document.documentElement.dataset.theme = isDark() ? "dark" : "light";
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Use ${isDark() ? "light" : "dark"} colours`);
  };
  button.addEventListener("click", () => {
    progress.keep({ theme: isDark() ? "light" : "dark" });
    apply();
  });
  system.addEventListener("change", apply);
  root.classList.add("lesson");
  apply();
}
