import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { grade, misplaced, numberFrom, rule } from "../src/lesson/grade.js";
import { modelsOf } from "../src/lesson/models.js";
import { normalNumbers, softmax, sum, withWeight } from "../src/lesson/numbers.js";
import { PLAIN } from "../src/lesson/plain-lines.js";
import { openProgress } from "../src/lesson/progress.js";
import { SECTIONS } from "../src/lesson/sections/index.js";
import { fakeOpen } from "./fake-model.js";

const NONSENSE = [null, undefined, "", "  ", "abc", Number.NaN, Infinity, "NaN", "1e999x", [], [Number.NaN], {}, "--1"];
const models = modelsOf(() => {}, fakeOpen);
const exercises = SECTIONS.flatMap(({ exercises }) => exercises);
const tasks = new Map(
  await Promise.all(exercises.map(async (exercise) => [exercise.id, await exercise.prepare(models)])),
);

/** Weights at some distance from others: weight is taken from the largest and given to another place. */
function movedBy(right, share, n) {
  const most = right.indexOf(Math.max(...right));
  const other = (most + 1 + (n % (right.length - 1))) % right.length;
  return right.map((weight, k) => weight + (k === other ? share : k === most ? -share : 0));
}

/** All orders of so many things. */
function orders(count) {
  if (count === 0) return [[]];
  return orders(count - 1).flatMap((rest) =>
    Array.from({ length: count }, (_, at) => [...rest.slice(0, at), count - 1, ...rest.slice(at)]),
  );
}

/** Answers to a task, by an independent definition of what is right: 30 of each where the answers are not few. */
function answersTo(task) {
  if (task.kind === "choice") {
    const all = task.options.map((_, n) => n);
    return { right: all.filter((n) => n === task.right), wrong: all.filter((n) => n !== task.right) };
  }
  if (task.kind === "number") {
    const within = Array.from({ length: 29 }, (_, n) => task.right + task.tolerance * ((n - 14) / 14.2));
    const beyond = Array.from({ length: 15 }, (_, n) => task.tolerance * (1.01 + n ** 2 / 7));
    const typed = [...within, task.right].map((number) =>
      task.unit ? `${number.toFixed(9)} ${task.unit}` : number.toFixed(9),
    );
    return { right: typed, wrong: beyond.flatMap((far) => [task.right + far, String((task.right - far).toFixed(9))]) };
  }
  if (task.kind === "weights") {
    const room = Math.max(...task.right);
    const within = Array.from({ length: 30 }, (_, n) => movedBy(task.right, (task.tolerance * (n + 0.01)) / 29.5, n));
    const share = (n) => task.tolerance * 1.01 + ((room - task.tolerance * 1.01) * n) / 30;
    return { right: within, wrong: Array.from({ length: 30 }, (_, n) => movedBy(task.right, share(n), n)) };
  }
  const all = orders(task.items.length);
  const isRight = (order) => order.every((place, n) => place === task.right[n]);
  return { right: all.filter(isRight), wrong: all.filter((order) => !isRight(order)) };
}

for (const [id, task] of tasks)
  test(`${id}: right answers are right, wrong ones wrong, nonsense is neither`, () => {
    const { right, wrong } = answersTo(task);
    assert.ok(right.length && wrong.length);
    for (const answer of right) assert.equal(grade(task, answer).state, "right", `right: ${answer}`);
    for (const answer of wrong) assert.equal(grade(task, answer).state, "wrong", `wrong: ${answer}`);
    for (const answer of NONSENSE) assert.equal(grade(task, answer).state, "unanswered", `nonsense: ${answer}`);
    if (task.kind === "number" || task.kind === "weights") assert.ok(right.length >= 30 && wrong.length >= 30);
    if (task.kind === "order")
      assert.notEqual(
        grade(
          task,
          task.items.map((_, n) => n),
        ).state,
        "right",
        "as it stands at first",
      );
    for (const answer of [right[0], wrong[0]])
      assert.ok(task.why(answer).length > 20 && !/NaN|undefined/.test(task.why(answer)));
    assert.ok(rule(task).length > 5 && task.question.length > 10 && !/NaN|undefined/.test(task.question));
  });

test("sections and exercises have names of their own, and lines of plain Python that the table knows", () => {
  const ids = SECTIONS.flatMap(({ id, exercises }) => [id, ...exercises.map((exercise) => exercise.id)]);
  assert.equal(new Set(ids).size, ids.length);
  for (const { id, plain = [] } of SECTIONS) for (const name of plain) assert.ok(PLAIN[name], `${id}: ${name}`);
});

test("the lesson imports no view and no application", () => {
  const source = readFileSync(join(import.meta.dirname, "..", "src", "lesson", "lesson.js"), "utf8");
  assert.doesNotMatch(source, /from "\.\.\/(views|app|source)\//);
});

test("numbers as people type them", () => {
  const typed = {
    0.5: 0.5,
    "0,5": 0.5,
    "50 %": 0.5,
    "50%": 0.5,
    " −3 ": -3,
    ".25": 0.25,
    "+2": 2,
    "1 000": 1000,
    "3.": 3,
  };
  for (const [text, number] of Object.entries(typed)) assert.equal(numberFrom(text), number, text);
  assert.equal(numberFrom("12 steps", "steps"), 12);
  assert.equal(numberFrom("58 %", "%"), 58);
  for (const text of ["", "a", "1,2,3", "1.2.3", "%", "-", "e5", "0x10"])
    assert.ok(Number.isNaN(numberFrom(text)), text);
});

test("the share of weight in another place", () => {
  assert.equal(misplaced([1, 0], [0, 1]), 1);
  assert.equal(misplaced([0.5, 0.5], [0.5, 0.5]), 0);
  assert.ok(Math.abs(misplaced([0.6, 0.4], [0.5, 0.5]) - 0.1) < 1e-12);
});

test("weights that are drawn stay weights", () => {
  const next = normalNumbers(3);
  for (let trial = 0; trial < 300; trial++) {
    let weights = softmax(Array.from({ length: 2 + (trial % 6) }, next));
    if (trial % 5 === 0) weights = weights.map((_, n) => (n === 0 ? 1 : 0));
    const held = new Set();
    for (let step = 0; step < 12; step++) {
      const k = Math.floor(Math.abs(next()) * 100) % weights.length;
      const value = Math.min(1, Math.abs(next()) / 2);
      const before = weights;
      weights = withWeight(weights, k, value, held);
      assert.ok(Math.abs(weights[k] - value) < 1e-12);
      assert.ok(
        weights.every((weight) => weight >= 0 && weight <= 1 + 1e-12),
        String(weights),
      );
      assert.ok(Math.abs(sum(weights) - 1) < 1e-9);
      const left = 1 - value - sum([...held].filter((n) => n !== k).map((n) => before[n]));
      const isFree = weights.some((_, n) => n !== k && !held.has(n));
      if (isFree && left >= 0) for (const n of held) if (n !== k) assert.equal(weights[n], before[n]);
      held.add(k);
    }
  }
});

/** localStorage of a test. */
const storageOf = (text) => {
  const values = new Map(text === undefined ? [] : [["regard lesson", text]]);
  return {
    values,
    getItem: (name) => values.get(name) ?? null,
    setItem: (name, value) => values.set(name, value),
    removeItem: (name) => values.delete(name),
  };
};

test("progress is kept, never lowered, and forgotten", () => {
  const storage = storageOf();
  const progress = openProgress(() => storage);
  progress.answered("a", "tried");
  progress.answered("b", "right");
  progress.answered("b", "tried");
  assert.ok(progress.lasts);
  assert.deepEqual(openProgress(() => storage).kept.exercises, { a: "tried", b: "right" });
  progress.forget();
  assert.deepEqual(progress.kept.exercises, {});
  assert.equal(storage.values.size, 0);
});

test("progress of somebody else, or none at all, is no obstacle", () => {
  for (const text of [
    "",
    "null",
    "[]",
    "{",
    '"x"',
    "7",
    '{"exercises": 3}',
    '{"exercises": {"a": "wrong"}, "theme": "red"}',
  ]) {
    const { kept } = openProgress(() => storageOf(text));
    assert.deepEqual(kept, { exercises: {}, whole: false, theme: null }, text);
  }
  const progress = openProgress(() => {
    throw new Error("not allowed");
  });
  assert.equal(progress.lasts, false);
  progress.answered("a", "right");
  assert.deepEqual(progress.kept.exercises, { a: "right" });
  progress.forget();
  assert.deepEqual(progress.kept.exercises, {});
});

test("a model is opened once, a text read once, and what failed is tried again", async () => {
  let [opened, told] = [0, []];
  const { model, read } = modelsOf(
    (name, share) => told.push([name, share]),
    async (name, progress) => {
      opened++;
      if (opened === 1) throw new Error("offline");
      return fakeOpen(name, progress);
    },
  );
  await assert.rejects(read("encoder", "Time flies"), /offline/);
  const readings = await Promise.all([read("encoder", "Time flies"), read("encoder", "Time flies"), model("encoder")]);
  assert.equal(readings[0], readings[1]);
  assert.equal(opened, 2);
  assert.notEqual(await read("encoder", "Time flies", { changes: { positions: false } }), readings[0]);
  assert.deepEqual(
    told.map(([, share]) => share),
    [null, 1, null, 0.5, 1],
  );
});
