// Builds the viewer into src/regard/viewer/dist, from which Python serves, saves and shows it: npm run build
//
//   viewer.js          the page, served or saved as a file; with viewer.js.map for the served one
//   widget.js          the same for a notebook, as the ES module that anywidget loads, with OpenSeadragon in it
//   answer.js          the saved page of an answer from documents, with answer.html
//   playground.js      the page whose models run in it, with playground.html, playground.css and viewer.css; the script of the
//                      models' worker is in it, as text
//   openseadragon.js   the library that moves and zooms the map, loaded when the map is first opened
//   viewer.css, viewer.html, page.html, openseadragon-license.txt

import { copyFile, mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { build } from "esbuild";

const HERE = import.meta.dirname;
const DIST = join(HERE, "..", "src", "regard", "viewer", "dist");

/** OpenSeadragon without the style sheet that it would put into the page, which the page's policy forbids. */
const withoutStyle = {
  name: "openseadragon-without-style",
  setup(bundler) {
    bundler.onLoad({ filter: /openseadragon\.js$/ }, async ({ path }) => {
      const condition = "if (!document.querySelector('style[data-openseadragon-mobile-css]'))";
      const source = await readFile(path, "utf8");
      if (source.split(condition).length !== 2) throw new Error("OpenSeadragon no longer adds its style as expected.");
      return { contents: source.replace(condition, "if (false)") };
    });
  },
};

const common = { absWorkingDir: HERE, bundle: true, minify: true, charset: "utf8", legalComments: "none" };
const script = { ...common, outdir: DIST, target: "es2022" };

/**
 * The worker in which a model runs, as the text that src/model/client.js starts it from: a page that was opened from a
 * folder may start no other file as a worker.
 */
const worker = await build({
  ...common,
  entryPoints: ["src/model/worker.js"],
  format: "iife",
  target: "es2022",
  write: false,
});
const withWorker = { define: { WORKER_SCRIPT: JSON.stringify(worker.outputFiles[0].text) } };

await rm(DIST, { recursive: true, force: true });
await mkdir(DIST, { recursive: true });
await Promise.all([
  build({ ...script, entryPoints: { viewer: "src/entry/page.js" }, format: "iife", sourcemap: "external" }),
  build({ ...script, entryPoints: { answer: "src/entry/answer.js" }, format: "iife" }),
  build({ ...script, entryPoints: { playground: "src/entry/playground.js" }, format: "iife", ...withWorker }),
  build({ ...script, entryPoints: { widget: "src/entry/widget.js" }, format: "esm", plugins: [withoutStyle] }),
  build({
    ...script,
    entryPoints: { openseadragon: "openseadragon" },
    format: "iife",
    globalName: "OpenSeadragon",
    plugins: [withoutStyle],
  }),
  build({ ...common, outdir: DIST, entryPoints: ["viewer.css", "playground.css"] }),
  ...["viewer.html", "page.html", "answer.html", "playground.html"].map((name) =>
    copyFile(join(HERE, name), join(DIST, name)),
  ),
  copyFile(join(HERE, "..", "licenses", "OpenSeadragon.txt"), join(DIST, "openseadragon-license.txt")),
]);
