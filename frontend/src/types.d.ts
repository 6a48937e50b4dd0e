// The types of the viewer: what is selected, what the questions of the page are answered with, what views share.
//
// Letters as in the documentation: H heads, N tokens, U units (words and special tokens), L layers, D dim.
// l, h, i, u are a layer, a head, a token, a unit.

import type { Elements } from "./elements.js";

export type ViewName = "sentence" | "heads" | "map" | "walk" | "compare";
export type Side = "from" | "to";
export type Scale = "linear" | "log";
export type Direction = "all" | "aa" | "ab" | "ba" | "bb";
export type SaveKind = "png" | "svg" | "csv" | "html";
export type Row = (string | number)[];

/** An array of an answer, row by row. */
export interface Numbers {
  shape: number[];
  data: Float32Array | Float64Array;
}

/** Everything that is chosen: shared by all views, and kept in the address. */
export interface Selection {
  view: ViewName;
  word: number | null; // the chosen unit
  side: Side; // the column of the sentence in which it was chosen
  token: number; // which of the word's tokens the walk follows
  step: number; // of the walk
  layer: number;
  head: number; // of map and walk
  heads: number[] | null; // of the sentence; null for all
  hide: boolean; // special tokens
  mass: number; // percent of a word's weight that gets lines
  direction: Direction; // of a pair of texts
  scale: Scale | null; // of the map's colours; null: by the length of the text
  reduce: "mean" | "max"; // what a cell of the map shows when zoomed out
  at: number[] | null; // the units of the map's cell that is read out: row, column
  seen: number[] | null; // left, top and width of the map's window, in cells
  after: number | null; // the layer of the comparison
  same: string | null; // the word that is compared
  texts: string | null; // the texts it is compared in
  theme: "light" | "dark" | null;
  text: string | null;
  pair: string | null;
  model: string | null;
  id: string | null; // of a reading that the server has
}

/** What a reading was made of. */
export interface TextSource {
  text: string | null;
  pair?: string | null;
  model?: string | null;
  id?: string | null;
}

/** The metadata of a reading. */
export interface Card {
  reading: string;
  model: string;
  text: string;
  truncated: string | null;
  layers: number;
  heads: number;
  units: string[];
  special: number[];
  first: number[]; // the first token of each unit
  tokens: string[];
  second: number | null; // the first unit of the second text
  causal: boolean;
  sinks: boolean;
  unknown?: number[];
  unknownTokens?: number[];
  note: string | null;
  attended?: number[]; // the layers that have attention
  memory?: { reading: number; kept?: number; readings: number; limit: number };
  source?: { text: string | null; pair?: string | null; model?: string | null };
  exactness?: string;
  has?: (l: number) => number[] | null; // of a long saved reading: the heads whose numbers the file holds
  floor?: (l: number, h: number) => number; // and the finest level of a head's map
  pictured?: number; // the level of its pictures
}

/** A reading that is shown: its metadata, and what follows from it. */
export interface Reading extends Omit<Card, "special" | "unknown" | "attended"> {
  id: string;
  wanted: string | null;
  requested: TextSource;
  special: Set<number>;
  unknown: Set<number>;
  attended: number[];
  U: number;
  N: number;
  L: number;
  H: number;
  tokensOf: (u: number) => number[];
}

export interface Start {
  models: string[];
  limit: number;
  first: { text?: string | null; pair?: string | null; reading?: string | null } | null;
  compares?: boolean;
  compared?: Comparison;
}

export interface Thumbs {
  thumbs: Numbers;
  shares: Numbers;
  habits: Record<string, string>;
  named: number;
}

export interface Projections {
  norm: string | null;
  head_norm: boolean;
  rotated: boolean;
  factor: number;
}

export interface WalkAnswer {
  rows: number[] | Numbers;
  weights: Numbers;
  best?: number;
  scale?: number;
  softcap?: number | null;
  adjusted?: boolean;
  sink?: number | null;
  masked?: boolean;
  error?: number | null;
  made?: Projections | null;
  projected?: boolean;
  carried_total?: number;
  [array: string]: unknown;
}

export interface Place {
  text: string;
  start: number;
  end: number;
}

export interface Comparison {
  word: string;
  places: Place[];
  clusters: number[][];
  left_out?: { why: string }[];
  similarity: Numbers; // (L+1, n, n)
  plane: Numbers; // (L+1, n, 2)
}

/** By question, its answer; regard/viewer/protocol.py describes them. */
export interface Answers {
  start: Start;
  read: Card;
  card: Card;
  look: { weights: Numbers };
  all: { weights: Numbers };
  thumbs: Thumbs;
  tile: { cells: Numbers };
  walk: WalkAnswer;
  compare: Comparison;
  page: { html: string };
  cancel: { given_up: number };
}

export type Question = { what: keyof Answers; [argument: string]: unknown };
export type QuestionOf<K extends keyof Answers> = { what: K; [argument: string]: unknown };

/** Answers questions: over HTTP, through a notebook's kernel, or from the file itself. */
// biome-ignore lint/suspicious/noExplicitAny: `Answers` says what each question is answered with
export type Source = (question: Question, signal?: AbortSignal) => Promise<any>;

export interface Opening {
  word?: number | null;
  layer?: number | null;
  head?: number | null;
  heads?: number[] | null;
  view?: ViewName;
  link?: string;
}

export interface Options {
  address?: boolean; // the selection is kept in the page's address
  reads?: boolean; // other texts can be read
  widget?: boolean; // the viewer is in a notebook
  opening?: Opening; // what is selected at first; `link` is the address that a saved page opens with
  reopened?: (link: string) => string; // the page's own file, made to open with a link
  // biome-ignore lint/suspicious/noExplicitAny: OpenSeadragon comes without types
  library: () => Promise<any>; // loads OpenSeadragon
}

export interface Tip {
  show(x: number, y: number, text: string): void;
  hide(): void;
}

/** One of the five views. */
export interface View {
  draw(signal: AbortSignal, isCurrent: () => boolean): Promise<void>;
  picture(): SVGElement | Promise<SVGElement>;
  table(): Row[] | Promise<Row[]>;
  reset?(): void;
  resize?(): void;
}

export interface WeightsOfWords {
  ofLayer(l: number): Promise<Float32Array>; // (H,U,U)
  ofWord(l: number, u: number, side: Side): Promise<Float32Array>; // (H,U)
}

/** What the views see of the viewer. */
export interface App {
  root: Document | ShadowRoot;
  by<K extends keyof Elements>(id: K): Elements[K];
  viewer: HTMLElement;
  options: Options;
  state: Selection;
  reading: Reading; // null until one is read; only the view Compare is drawn before
  start: Start;
  tip: Tip;
  weights: WeightsOfWords;
  ask<K extends keyof Answers>(question: QuestionOf<K>, signal?: AbortSignal): Promise<Answers[K]>;
  select(change: Partial<Selection>, options?: { replace?: boolean }): Promise<void>;
  draw(): Promise<void>;
  note(replace?: boolean): void;
  link(): string;
  findWord(text: string, after?: number): number | null;
  showError(message: string | null): void;
  isDark(): boolean;
  isVisible(u: number | null): boolean;
  visibleUnits(): number[];
  defaultWord(): number;
}

/** A drawing with its origin at its top left corner. */
export interface Drawing {
  body: SVGElement;
  width: number;
  height: number;
}
