import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { test } from "node:test";

const HOME = join(import.meta.dirname, "..");
const read = (...path) => readFileSync(join(HOME, ...path), "utf8");
const modules = readdirSync(join(HOME, "src"), { recursive: true })
  .map((name) => join("src", String(name)))
  .filter((name) => name.endsWith(".js"));

/** The modules that a module imports. */
function importsOf(name) {
  const imported = [...read(name).matchAll(/^(?:import|export)\b[^;]*?from "(\.[^"]+)";$/gms)];
  return imported.map(([, path]) => relative(HOME, resolve(HOME, dirname(name), path)));
}

test("a module has 400 lines at most", () => {
  const long = modules.filter((name) => name !== "src/protocol.js" && read(name).split("\n").length > 401);
  assert.deepEqual(long, []);
});

test("imports go one way: entry → app → lesson, offline, source → views → model → ui → protocol", () => {
  const order = ["protocol.js", "ui", "model", "views", "source", "offline", "lesson", "app", "entry"];
  const roomOf = (name) => order.indexOf(name.split("/")[1]);
  for (const name of modules) {
    assert.ok(roomOf(name) >= 0, `${name} is in no room`);
    for (const path of importsOf(name)) assert.ok(roomOf(path) <= roomOf(name), `${name} imports ${path}`);
  }
});

test("no imports run in a circle", () => {
  const done = new Set();
  const visit = (name, path) => {
    assert.ok(!path.includes(name), [...path, name].join(" → "));
    if (done.has(name)) return;
    for (const next of importsOf(name)) visit(next, [...path, name]);
    done.add(name);
  };
  for (const name of modules) visit(name, []);
  assert.equal(done.size, modules.length);
});

test("a view imports no other view", () => {
  for (const name of modules.filter((path) => path.startsWith("src/views/")))
    for (const path of importsOf(name).filter((other) => other.startsWith("src/views/")))
      assert.equal(path.split("/")[2], name.split("/")[2], `${name} imports ${path}`);
});

test("the elements that the types name are those of the page", () => {
  const ids = [...read("viewer.html").matchAll(/\bid="([\w-]+)"/g)].map(([, id]) => id);
  const named = [...read("src", "elements.d.ts").matchAll(/^ {2}"?([\w-]+)"?: /gm)].map(([, id]) => id);
  assert.deepEqual(new Set(named), new Set(["viewer", ...ids]));
});

test("what is bundled stands under the licence that is kept with the sources", () => {
  const licence = read("node_modules", "openseadragon", "LICENSE.txt");
  assert.equal(read("..", "licenses", "OpenSeadragon.txt"), licence);
});

test("the lock file names no registry", () => {
  assert.doesNotMatch(read("package-lock.json"), /"resolved"/);
});
