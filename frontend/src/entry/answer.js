// The saved page of an answer from documents: it carries the answer, and asks nobody.

import { count } from "../ui/format.js";
import { filesOf } from "../views/passages/answer.js";
import { PassagesView } from "../views/passages/view.js";

/** @import { AskReply as Answer } from "../protocol.js" */

/** @param {string} id */
const by = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

/** @type {Answer} */
const answer = JSON.parse(by("data").textContent ?? "");
by("question").textContent = answer.question;
by("about").textContent = [
  answer.model,
  count(answer.passages.length, "passage"),
  `from ${count(filesOf(answer).length, "file")}`,
].join(" · ");
new PassagesView(by("answer"), answer);

const isDark = () => {
  const chosen = by("viewer").dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};

/** Names the theme that the button chooses. */
function drawTheme() {
  by("theme").textContent = isDark() ? "Light" : "Dark";
  by("theme").setAttribute("aria-label", `Use ${isDark() ? "light" : "dark"} colours`);
}

by("theme").addEventListener("click", () => {
  const theme = isDark() ? "light" : "dark";
  by("viewer").dataset.theme = document.documentElement.dataset.theme = theme;
  drawTheme();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawTheme);
drawTheme();
