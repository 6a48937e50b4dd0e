// The lesson's page: it stands beside the playground's, with the models' files in models/.

import { mountLesson } from "../lesson/lesson.js";
import { SECTIONS } from "../lesson/sections/index.js";

mountLesson(/** @type {HTMLElement} */ (document.getElementById("lesson")), SECTIONS);
