// The types of the lesson: its sections, its exercises, and what the page gives them.

import type { Model, Reading, ReadOptions } from "../model/types.js";

export type Child = Node | string;

/** A section: a module in sections/ exports one, and sections/index.js lists it. */
export interface Section {
  id: string; // its address: #id
  title: string;
  plain?: string[]; // what docs/plain.py has of it: names of plain-lines.js
  build(lesson: Lesson): Child[] | Promise<Child[]>;
  exercises: Exercise[];
}

/** What a section is built with. */
export interface Lesson {
  /** A model by the name of its file: "encoder", "stories", "dates". It is opened when first asked for. */
  model(name: string): Promise<Model>;
  /** A text read by a model; the same question is computed once. */
  read(name: string, text: string, options?: ReadOptions): Promise<Reading>;
  /** A place for what takes a while: it is filled when that is there, and says so if it fails. */
  later(content: () => Promise<Child[]>): HTMLElement;
  /** One of the section's exercises, where the text wants it; the others follow at the section's end. */
  exercise(id: string): HTMLElement;
}

/** A question. Its task is computed when it is shown, so that the answer comes from numbers and from nowhere else. */
export interface Exercise {
  id: string; // unique in the whole lesson: progress is kept by it
  prepare(lesson: Pick<Lesson, "model" | "read">): Task | Promise<Task>;
}

export type Task = ChoiceTask | NumberTask | WeightsTask | OrderTask;

interface Asked<Answer> {
  question: string; // with the marks of prose.js
  right: Answer;
  why(answer: Answer): string; // what is so and for what reason, shown after each answer
  show?(answer: Answer): Child[]; // the real thing; of weights, they are shown anyway
}

/** One of several options; `right` is its place. */
export interface ChoiceTask extends Asked<number> {
  kind: "choice";
  options: string[];
}

/** A number, right within ± the tolerance. */
export interface NumberTask extends Asked<number> {
  kind: "number";
  tolerance: number;
  digits?: number; // of the right one, as it is shown
  unit?: string;
}

/** Weights over words, right where at most the tolerance's share of the weight lies in the wrong place. */
export interface WeightsTask extends Asked<number[]> {
  kind: "weights";
  words: string[];
  tolerance: number;
}

/** Items to put in order; `right` has their places in the list, first to last. */
export interface OrderTask extends Asked<number[]> {
  kind: "order";
  items: string[];
  ends: [string, string]; // what the first and the last place mean
}

/** What an answer is worth. */
export interface Grade {
  state: "right" | "wrong" | "unanswered";
  says: string;
}

export type Answer = number | number[] | string | null;

/** What the browser keeps of the lesson. */
export interface Kept {
  exercises: Record<string, "right" | "tried">;
  whole: boolean; // all sections on one page
  theme: "light" | "dark" | null;
}

/** A curve of a chart. */
export interface Series {
  name: string;
  points: [number, number][];
}

/** A point that a plane shows, as an arrow from the origin. */
export interface PlaneVector {
  name: string;
  at: [number, number];
  role?: "query" | "key" | "value" | "result";
  moves?: boolean;
}
