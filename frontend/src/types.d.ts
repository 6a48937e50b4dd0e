// The types of the viewer: what is selected, the replies to its requests, what views share.
//
// Letters as in the documentation: H heads, N tokens, U units (words and special tokens), L layers, D dim.
// l, h, i, u are a layer, a head, a token, a unit.

import type { Elements } from "./elements.js";
import type { Architecture } from "./model/types.js";
import type * as protocol from "./protocol.js";
import type { StartReply } from "./protocol.js";

export type {
  AtlasHead,
  AtlasOfHeads,
  AtlasProof,
  AtlasRow,
  AtlasScore,
  CompareReply,
  MapOffer,
  NumberArray,
  Place,
  Projections,
  StartReply,
  ThumbnailsReply,
  WalkReply,
} from "./protocol.js";

export type ViewName = "atlas" | "sentence" | "heads" | "map" | "walk" | "predictions" | "compare";
export type Side = "from" | "to";
export type Scale = "linear" | "log";
export type Direction = "all" | "aa" | "ab" | "ba" | "bb";
export type SaveKind = "png" | "svg" | "csv" | "html";
export type Row = (string | number)[];

/** What the colours of numbers stand for: 0 to the peak or, where numbers have signs, −peak to peak. */
export interface Range {
  peak: number;
  scale: Scale;
  signed: boolean;
}

/** Everything that is chosen: shared by all views, and kept in the address. */
export interface Selection {
  view: ViewName;
  attention: string | null; // of an encoder-decoder, which one; null for the one that is shown at first
  map: string; // what is shown of the attention: the name of one of the reading's maps
  target: string | null; // of a map that is about one, as on the command line; null for the usual one
  word: number | null; // the chosen unit
  side: Side; // the column of the sentence in which it was chosen
  token: number; // which of the word's tokens the walk follows
  step: number; // of the walk
  layer: number;
  head: number; // of map and walk
  heads: number[] | null; // of the sentence; null for all
  hide: boolean; // special tokens
  hideFirst: boolean | null; // the first unit; null: where it takes most of the attention
  score: string | null; // of the atlas; null for the first
  lens: "predicted" | "next"; // whose probability the colours of the predictions are: the predicted token's, or that of the one that came
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

/** The metadata of a reading; a page without Python adds what its file holds. */
export interface MetadataReply extends protocol.MetadataReply {
  has?: (l: number) => number[] | null; // of a long saved reading: the heads whose numbers the file holds
  floor?: (l: number, h: number) => number; // and the finest level of a head's map
  pictured?: number; // the level of its pictures
}

/** The words of a text, as rows or as columns. */
export interface Words {
  text: string;
  units: string[];
  special: Set<number>;
  unknown: Set<number>;
  tokens: string[];
  unknown_tokens: number[];
  second: number | null; // the unit with which the second text of a pair begins
  reply: number | null; // the unit with which the reply begins that the model wrote
  U: number;
  N: number;
  tokensOf: (u: number) => number[];
}

/** A reading that is shown: its metadata, and what follows from it. Its own words attend, those of `columns` are attended to. */
export interface Reading extends Omit<MetadataReply, "special" | "unknown" | "columns">, Words {
  id: string;
  wanted: string | null;
  requested: TextSource;
  columns: Words; // itself where the words attend to each other
  attended: number[]; // the layers that have attention
  L: number;
  H: number;
}

/** By the type of a request, its reply. */
export interface Replies {
  start: StartReply;
  read: MetadataReply;
  metadata: MetadataReply;
  word_weights: protocol.WordWeightsReply;
  layer_weights: protocol.LayerWeightsReply;
  thumbnails: protocol.ThumbnailsReply;
  tile: protocol.TileReply;
  walk: protocol.WalkReply;
  predictions: protocol.PredictionsReply;
  target: protocol.TargetReply;
  compare: protocol.CompareReply;
  page: protocol.PageReply;
  cancel: protocol.CancelReply;
  write: protocol.WriteReply;
  written: protocol.WrittenReply;
  stop: protocol.StopReply;
  ask: protocol.AskReply;
}

/** A request; protocol.js has its fields. One about the reading that is shown need not name it. */
export type RequestOf<K extends keyof Replies> = { type: K; [field: string]: unknown };
export type Request = RequestOf<keyof Replies>;

/** Answers requests: over HTTP, through a notebook's kernel, or from the file itself. */
// biome-ignore lint/suspicious/noExplicitAny: `Replies` says what the reply to each request is
export type Source = (request: Request, signal?: AbortSignal) => Promise<any>;

/** A model that runs in the page, as the page's manifest names it. */
export interface ModelOffer {
  name: string; // of its file, and in the address
  label: string; // as a reader sees it
  architecture: Architecture;
  bytes: number; // of its file
  exactness: string; // how its weights are rounded
  examples: { text: string; pair: string | null }[];
}

export interface Opening {
  word?: number | null;
  layer?: number | null;
  head?: number | null;
  heads?: number[] | null;
  view?: ViewName;
  map?: string;
  attention?: string;
  link?: string;
}

export interface Options {
  address?: boolean; // the selection is kept in the page's address
  reads?: boolean; // other texts can be read
  widget?: boolean; // the viewer is in a notebook
  opening?: Opening; // what is selected at first; `link` is the address that a saved page opens with
  models?: ModelOffer[]; // those that run in the page, by the names that `StartReply.models` has
  reopened?: (link: string) => string; // the page's own file, made to open with a link
  // biome-ignore lint/suspicious/noExplicitAny: OpenSeadragon comes without types
  library: () => Promise<any>; // loads OpenSeadragon
}

export interface Tip {
  show(x: number, y: number, text: string): void;
  hide(): void;
}

/** One of the views. */
export interface View {
  draw(signal: AbortSignal, isCurrent: () => boolean): Promise<void>;
  picture(): SVGElement | Promise<SVGElement>;
  table(): Row[] | Promise<Row[]>;
  reset?(): void;
  resize?(): void;
}

export interface WeightsOfWords {
  ofLayer(l: number): Promise<Float32Array>; // (H,U,V)
  ofWord(l: number, u: number, side: Side): Promise<Float32Array>; // (H,V), or (H,U) of those that attend
}

export interface PredictionsOfTokens {
  from(l: number, first: number, signal?: AbortSignal): Promise<protocol.PredictionsReply>;
  blockOf(i: number): number;
}

/** What the views see of the viewer. */
export interface App {
  root: Document | ShadowRoot;
  by<K extends keyof Elements>(id: K): Elements[K];
  viewer: HTMLElement;
  options: Options;
  state: Selection;
  reading: Reading; // null until one is read; only the views Compare and Atlas are drawn before
  start: StartReply;
  targetName: string | null; // of the target that is chosen; null for the usual one
  tip: Tip;
  weights: WeightsOfWords;
  predictions: PredictionsOfTokens;
  request<K extends keyof Replies>(request: RequestOf<K>, signal?: AbortSignal): Promise<Replies[K]>;
  select(change: Partial<Selection>, options?: { replace?: boolean }): Promise<void>;
  draw(): Promise<void>;
  note(replace?: boolean): void;
  link(): string;
  findWord(text: string, after?: number, side?: Side): number | null;
  showError(message: string | null): void;
  isDark(): boolean;
  isVisible(u: number | null, side?: Side): boolean;
  visibleUnits(side?: Side): number[];
  defaultWord(): number;
  chosenRow(): number | null;
}

/** A drawing with its origin at its top left corner. */
export interface Drawing {
  body: SVGElement;
  width: number;
  height: number;
}
