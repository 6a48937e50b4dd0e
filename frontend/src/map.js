// Map: the weights of one head as a street map is shown: all of them from afar, each of them up close.
//
// OpenSeadragon moves and zooms; its tiles are numbers, asked for where they come into view, kept, and coloured here.
// A unit is a pixel of the map's finest level, level 0; a cell of level n stands for 2ⁿ × 2ⁿ of them: view/tiles.py.

import { clipped, el, fillSlots, format, formatWeight, quoted, shown } from "./dom.js";
import { painted, peakOf, ramp, shade, weightAt } from "./colour.js";
import { tickText } from "./figure.js";
import { mapPicture } from "./map-picture.js";
import { visible } from "./words.js";

const TILE = 256; // cells
const KEEP = 160; // tiles of numbers: 42 MB
const LABEL = { row: 15, column: 20 }; // px that a label takes at least; those of columns slant
const NUMBER = 36; // px from which a cell carries its number
const CLOSE = 48; // px of a cell that was jumped to
const LOG = 256; // words from which on small weights matter more than the differences of large ones

export function mapView(app) {
  const { by } = app;
  const chart = by("chart");
  let library = null; // OpenSeadragon, once it is loaded
  let viewer = null; // OpenSeadragon's, once it is needed
  let map = null; // what it shows: {key, units, size, top, floor, most: [by level], colours}
  let tiles = new Map(); // "key level row column" → {data, rows, columns}, the latest used last
  let coming = new Map(); // the same → its promise
  let at = null; // {row, column, exact}: the cell that is read out, as places among the units; exact: alone, whatever the zoom
  let margin = 0; // px for the labels
  let recorded = ""; // of the map, as the state has it in `seen`
  let repaint = null; // a timer

  // ── What is shown ──────────────────────────────────────────────────────────────────────────────────────────────────

  const scale = () => app.state.scale ?? (app.reading.U > LOG ? "log" : "linear");

  async function draw(signal, stillWanted) {
    const { state, reading } = app;
    by("scale").value = scale();
    by("reduce").value = state.reduce;
    library ??= await app.options.library();
    const key = `${reading.id} ${state.layer} ${state.head} ${state.reduce} ${state.hide}`;
    if (map?.key !== key) {
      const units = app.visible();
      const old = map;
      const top = Math.max(0, Math.ceil(Math.log2(units.length / TILE)), reading.pictured ?? 0);
      const floor = reading.floor?.(state.layer, state.head) ?? 0; // the finest level that a frozen reading has
      map = { key, units, size: units.length, top, floor: Math.min(floor, top), most: [], colours: 0 };
      map.apart = reading.causal && units[0] === 0; // the first word sees only itself: no measure for the others
      by("for-reduce").hidden = map.top === 0 || Boolean(reading.pictured);
      await tileAt(map.top, 0, 0, signal); // the whole of it: the first thing to be seen
      if (!stillWanted()) {
        map = old?.key === key ? old : null;
        return;
      }
      await show(old !== null && old.units.join() === units.join());
    } else if (map.painted !== `${scale()} ${app.isDark()}`) await show(true);
    if (!stillWanted()) return;
    fitLabels();
    explain();
    if (state.at && state.at.every(app.isVisible)) {
      const [row, column] = state.at.map((u) => map.units.indexOf(u));
      const moved = at?.row !== row || at?.column !== column;
      at = { row, column, exact: true };
      if (moved && !state.seen) jumpTo(row, column, true);
    } else if (!at || at.row >= map.size || (state.word !== null && map.units[at.row] !== state.word)) {
      at = null;
      const best = await firstCell();
      if (!stillWanted()) return;
      at ??= best; // unless the pointer was faster
    }
    if ((state.seen?.join() ?? "") !== recorded && (state.seen || !state.at)) lookAt(state.seen);
    drawLegend();
    await readOut();
    drawLabels();
  }

  /** The row of the chosen word, and whom it looks at most. */
  async function firstCell() {
    const { state, reading } = app;
    const row = Math.max(0, map.units.indexOf(state.word ?? app.usualWord()));
    const weights = await app.look(state.layer, map.units[row], "from");
    const weight = (n) => weights[state.head * reading.U + map.units[n]];
    let column = Number.isNaN(weight(0)) ? row : 0; // a long frozen reading may not have this head's rows
    for (let n = 1; n < map.size; n++) if (weight(n) > weight(column)) column = n;
    return { row, column, exact: state.word !== null };
  }

  // ── Tiles ──────────────────────────────────────────────────────────────────────────────────────────────────────────

  const nameOf = (level, row, column) => `${map.key} ${level} ${row} ${column}`;

  /** The numbers of a tile, asked for once. */
  function tileAt(level, row, column, signal) {
    const name = nameOf(level, row, column);
    const found = tiles.get(name);
    if (found) {
      tiles.delete(name);
      tiles.set(name, found);
      return Promise.resolve(found);
    }
    if (!coming.has(name)) {
      const { layer, head, reduce, hide } = app.state;
      const here = map;
      const question = { type: "tile", layer, head, reduce, hide, level, row, column };
      const answer = app.ask(question, signal).then(({ cells }) => {
        const tile = { data: cells.data, rows: cells.shape[0], columns: cells.shape[1] };
        tiles.set(name, tile);
        while (tiles.size > KEEP) tiles.delete(tiles.keys().next().value);
        const most = peakOf(tile.data, tile.rows, tile.columns, here.apart && !row && !column);
        if (!(most <= here.most[level])) {
          const grew = here.most[level] !== undefined;
          here.most[level] = most;
          if (grew && here === map) recolourSoon();
        }
        return tile;
      });
      coming.set(name, answer);
      answer.catch(() => {}).finally(() => coming.delete(name));
    }
    return coming.get(name);
  }

  const most = (level) => map.most[level] ?? map.most[map.top] ?? 1;

  function recolourSoon() {
    clearTimeout(repaint);
    repaint = setTimeout(() => {
      show(true);
      drawLegend();
    }, 150);
  }

  /** Gives the map to OpenSeadragon; `stay` keeps what is seen where it is. */
  function show(stay) {
    const OpenSeadragon = library;
    viewer ??= makeViewer(OpenSeadragon);
    const here = map;
    stay &&= viewer.world.getItemCount() > 0;
    map.painted = `${scale()} ${app.isDark()}`;
    map.colours++;
    const of = (n, level) => Math.min(n, Math.ceil(here.size / 2 ** level));
    const source = new OpenSeadragon.TileSource({
      width: here.size,
      height: here.size,
      tileSize: TILE,
      tileOverlap: 0,
      minLevel: 0,
      maxLevel: here.top - here.floor,
    });
    if (here.floor) source.getLevelScale = (level) => 2 ** (level - here.top);
    Object.assign(source, {
      getTileUrl: (level, x, y) => `${here.key} ${here.colours} ${level} ${y} ${x}`,
      hasTransparency: () => false,
      getTileBounds(level, x, y, ofSource) {
        const fine = here.top - level;
        const [left, top] = [x * TILE, y * TILE];
        const [width, height] = [of(left + TILE, fine) - left, of(top + TILE, fine) - top];
        if (ofSource) return new OpenSeadragon.Rect(0, 0, width, height);
        const cell = 2 ** fine / here.size;
        return new OpenSeadragon.Rect(left * cell, top * cell, width * cell, height * cell);
      },
      downloadTileStart(job) {
        const { level, x, y } = job.tile;
        const fine = here.top - level;
        job.userData.stop = new AbortController();
        if (here !== map) return job.fail("The map has changed.");
        tileAt(fine, y, x).then(
          (tile) => {
            const canvas = painted(tile.data, tile.rows, tile.columns, most(fine), scale(), app.isDark());
            job.finish(canvas.getContext("2d"), null, "context2d");
          },
          (error) => {
            if (error.name !== "AbortError") app.tell(error.message);
            job.fail(error.message);
          },
        );
      },
      downloadTileAbort() {}, // the numbers, once computed, are of use later
    });
    viewer.maxZoomPixelRatio = Math.max(64, (1.25 * viewer.container.clientWidth) / here.size);
    return new Promise((done) =>
      viewer.addTiledImage({
        tileSource: source,
        index: 0,
        replace: viewer.world.getItemCount() > 0,
        success: () => {
          viewer.viewport.maxZoomPixelRatio = viewer.maxZoomPixelRatio;
          if (!stay) viewer.viewport.goHome(true);
          drawLabels();
          done();
        },
        error: done,
      }),
    );
  }

  function makeViewer(OpenSeadragon) {
    fitLabels();
    OpenSeadragon.console = { ...console, warn() {} }; // it warns of tiles that come too late; ours are kept all the same
    const made = OpenSeadragon({
      element: by("deep"),
      drawer: "canvas",
      prefixUrl: "",
      showNavigationControl: false,
      imageSmoothingEnabled: false,
      smoothTileEdgesMinZoom: Infinity,
      immediateRender: true,
      blendTime: 0,
      animationTime: matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 0.35,
      preserveViewport: true,
      visibilityRatio: 0.3,
      minZoomImageRatio: 0.8,
      maxZoomPixelRatio: 64,
      minPixelRatio: 0.7,
      imageLoaderLimit: 4,
      maxImageCacheCount: 240,
      zoomPerScroll: 1.3,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
      gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: true },
      keyboardNavEnabled: false,
    });
    made.innerTracker.keyDownHandler = made.innerTracker.keyHandler = null; // the keys are ours: see below
    made.canvas.tabIndex = -1;
    made.canvas.setAttribute("aria-hidden", "true");
    for (const event of ["update-viewport", "resize"]) made.addHandler(event, drawLabels);
    made.addHandler("animation-finish", () => {
      drawLegend();
      noteWindow();
    });
    made.addHandler("canvas-click", (event) => {
      if (!event.quick) return;
      moveTo(...cellUnder(event.position));
      chooseRow();
    });
    new OpenSeadragon.MouseTracker({
      element: made.container,
      moveHandler: (event) => map && event.pointerType !== "touch" && moveTo(...cellUnder(event.position), false),
    });
    return made;
  }

  // ── Places ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** What is seen: the units at the left and top edge, with fractions, and px a unit. */
  function seen() {
    const bounds = viewer.viewport.getBoundsNoRotate(true);
    return { left: bounds.x * map.size, top: bounds.y * map.size, unit: viewer.container.clientWidth / (bounds.width * map.size) };
  }

  /** Notes in the address what part of the map is seen; nothing where it is all of it. */
  function noteWindow() {
    if (!map || app.state.view !== "map") return;
    const { left, top, unit } = seen();
    const width = viewer.container.clientWidth / unit;
    const all = Math.abs(left) + Math.abs(top) + Math.abs(width - map.size) < 0.01 * map.size;
    app.state.seen = all ? null : [left, top, width].map((number) => Number(number.toFixed(2)));
    recorded = app.state.seen?.join() ?? "";
    app.note(true);
  }

  /** Shows a part of the map: left, top and width in cells, or all of it. */
  function lookAt(part) {
    recorded = part?.join() ?? "";
    if (!part) return viewer.viewport.goHome(true);
    const [left, top, width] = part.map((number) => number / map.size);
    const OpenSeadragon = library;
    viewer.viewport.fitBounds(new OpenSeadragon.Rect(left, top, width, width), true);
  }

  /** The level whose cells are at least a pixel. */
  const levelSeen = (unit) => Math.min(map.top, Math.max(map.floor, Math.ceil(-Math.log2(unit) - 0.01)));

  function cellUnder({ x, y }) {
    const { left, top, unit } = seen();
    return [Math.floor(top + y / unit), Math.floor(left + x / unit)];
  }

  function moveTo(row, column, follow = true) {
    const within = (place) => Math.min(map.size - 1, Math.max(0, place));
    at = { row: within(row), column: within(column) };
    if (follow) bringIn();
    readOut();
    drawLabels();
  }

  /** Moves the map until the cell is seen. */
  function bringIn() {
    if (!viewer) return;
    const { left, top, unit } = seen();
    const { clientWidth: width, clientHeight: height } = viewer.container;
    const shift = (place, first, room) => {
      const [near, far] = [(place - first) * unit, (place + 1 - first) * unit];
      return near < 0 ? near : far > room ? far - room : 0;
    };
    const [dx, dy] = [shift(at.column, left, width), shift(at.row, top, height)];
    if (!dx && !dy) return;
    const OpenSeadragon = library;
    viewer.viewport.panBy(viewer.viewport.deltaPointsFromPixels(new OpenSeadragon.Point(dx, dy)));
  }

  /** Goes where a cell is seen up close. */
  function jumpTo(row, column, now = false) {
    at = { row, column, exact: true };
    const OpenSeadragon = library;
    const wide = viewer.container.clientWidth / CLOSE / map.size; // of the map
    const high = viewer.container.clientHeight / CLOSE / map.size;
    if (map.size * CLOSE <= viewer.container.clientWidth) viewer.viewport.goHome(now);
    else {
      const [x, y] = [(column + 0.5) / map.size - wide / 2, (row + 0.5) / map.size - high / 2];
      viewer.viewport.fitBounds(new OpenSeadragon.Rect(x, y, wide, high), now);
    }
  }

  // ── Labels, cursor, numbers ────────────────────────────────────────────────────────────────────────────────────────

  function fitLabels() {
    const width = chart.clientWidth;
    const context = by("labels").getContext("2d");
    context.font = `600 ${labelFont()}`; // as the chosen word has it
    const widthOf = (u) => context.measureText(clipped(nameOfUnit(u), 24)).width;
    const usual = Math.min(Math.max(30, ...map.units.slice(0, 400).map(widthOf)), width < 500 ? 64 : 120);
    const chosen = app.isVisible(app.state.word) ? Math.min(widthOf(app.state.word), width / 4) : 0; // whole, if it can be
    margin = Math.ceil(Math.max(usual, chosen)) + 14;
    chart.style.setProperty("--margin", `${margin}px`);
  }

  const nameOfUnit = (u) => visible(app.reading.units[u]);
  const labelFont = () => `13px ${getComputedStyle(app.viewer).fontFamily}`;
  const cut = new Map(); // "width text" → what fits

  function fitting(context, text, room) {
    const key = `${context.font} ${room} ${text}`;
    if (!cut.has(key)) {
      if (cut.size > 5000) cut.clear();
      let some = clipped(text, 30);
      while (some.length > 1 && context.measureText(some).width > room) some = `${[...some].slice(0, -2).join("")}…`;
      cut.set(key, some);
    }
    return cut.get(key);
  }

  function drawLabels() {
    if (!viewer || !map || by("map").hidden || !viewer.world.getItemCount()) return;
    const canvas = by("labels");
    const [width, height] = [chart.clientWidth, chart.clientHeight];
    const sharp = devicePixelRatio;
    const [across, down] = [canvas.clientWidth, canvas.clientHeight].map((size) => Math.round(size * sharp));
    if (canvas.width !== across || canvas.height !== down) [canvas.width, canvas.height] = [across, down];
    const context = canvas.getContext("2d");
    context.setTransform(sharp, 0, 0, sharp, 0, 0);
    context.clearRect(0, 0, canvas.clientWidth, height);
    context.font = labelFont();
    context.textBaseline = "middle";
    const style = getComputedStyle(app.viewer);
    const [ink, soft, accent, paper] = ["--ink", "--soft", "--accent", "--paper"].map((name) => colourOf(style, name));
    const view = seen();
    const { left, top, unit } = view;

    const labels = (first, room, least, draw) => {
      const every = 2 ** Math.max(0, Math.ceil(Math.log2(least / unit)));
      const from = Math.max(0, Math.floor(first / every) * every);
      for (let n = from; n < map.size && (n - first) * unit < room; n += every) {
        const place = (n + 0.5 - first) * unit;
        if (place < 0 || place > room) continue;
        const u = map.units[n];
        context.fillStyle = every === 1 && u === app.state.word ? ink : soft;
        context.font = every === 1 && u === app.state.word ? `600 ${labelFont()}` : labelFont();
        draw(fitting(context, nameOfUnit(u), margin - 12), place);
      }
    };
    context.textAlign = "right";
    labels(top, height - margin, LABEL.row, (text, place) => context.fillText(text, margin - 8, margin + place));
    context.textAlign = "left";
    labels(left, width - margin, LABEL.column, (text, place) => {
      context.save();
      context.translate(margin + place, margin - 6);
      context.rotate(-Math.PI / 4);
      context.fillText(text, 0, 0);
      context.restore();
    });

    context.save();
    context.beginPath();
    context.rect(margin, margin, width - margin, height - margin);
    context.clip();
    if (unit >= NUMBER) writeNumbers(context, view);
    if (at) {
      const level = levelSeen(unit);
      const cell = 2 ** level;
      const [row, column] = [Math.floor(at.row / cell) * cell, Math.floor(at.column / cell) * cell];
      const [x, y, size] = [margin + (column - left) * unit, margin + (row - top) * unit, Math.max(5, cell * unit)];
      for (const [colour, wide, grow] of [[paper, 4, 1.5], [accent, 2, 1.5]]) {
        context.strokeStyle = colour;
        context.lineWidth = wide;
        context.strokeRect(x - grow, y - grow, size + 2 * grow, size + 2 * grow);
      }
    }
    context.restore();
  }

  /** A colour of the style sheet; light-dark() is only worked out where it is used. */
  function colourOf(style, name) {
    const key = `${name} ${app.isDark()}`;
    if (!colours.has(key)) {
      const probe = el("span", { class: `probe${name}` });
      app.viewer.append(probe);
      colours.set(key, getComputedStyle(probe).color);
      probe.remove();
    }
    return colours.get(key);
  }
  const colours = new Map();

  function writeNumbers(context, { left, top, unit }) {
    const [width, height] = [chart.clientWidth - margin, chart.clientHeight - margin];
    context.font = `${unit > 60 ? 13 : 11}px ${getComputedStyle(app.viewer).fontFamily}`;
    context.textAlign = "center";
    const dark = app.isDark();
    for (let row = Math.max(0, Math.floor(top)); row < map.size && (row - top) * unit < height; row++)
      for (let column = Math.max(0, Math.floor(left)); column < map.size && (column - left) * unit < width; column++) {
        const weight = cellOf(0, row, column);
        if (weight === undefined || !(weight >= 0.005)) continue;
        const light = shade(weight, most(0), scale()) > 0.5 !== dark;
        context.fillStyle = light ? "#ffffff" : "#111111";
        const [x, y] = [margin + (column + 0.5 - left) * unit, margin + (row + 0.5 - top) * unit];
        context.fillText(format(weight, 2).replace(/^0/, ""), x, y);
      }
  }

  /** The number of a cell, if its tile is here. */
  function cellOf(level, row, column) {
    const tile = tiles.get(nameOf(level, Math.floor(row / TILE), Math.floor(column / TILE)));
    return tile?.data[(row % TILE) * tile.columns + (column % TILE)];
  }

  function drawLegend() {
    if (!map) return;
    const level = viewer?.world.getItemCount() ? levelSeen(seen().unit) : map.top;
    const bar = el("canvas", { width: 256, height: 1 });
    const context = bar.getContext("2d");
    ramp(app.isDark()).forEach((colour, n) => {
      context.fillStyle = `rgb(${colour.join(" ")})`;
      context.fillRect(n, 0, 1, 1);
    });
    const peak = most(level);
    const ticks = [0, 0.25, 0.5, 0.75, 1].map((place) => {
      const weight = weightAt(place, peak, scale());
      const tick = el("span", {}, tickText(weight, peak, scale()));
      tick.style.left = `${100 * place}%`;
      return tick;
    });
    by("legend").replaceChildren(bar, ...ticks);
    by("legend").setAttribute("aria-label", `Colours from ${ticks[0].textContent} to ${ticks[4].textContent}, ${scale()}`);
  }

  /** What the rows sum to, in words. */
  function explain() {
    const { special, sinks } = app.reading;
    const hidden = app.state.hide && special.size;
    const sums = hidden
      ? "the rest of each row's weight is on the special tokens, which are hidden"
      : sinks
        ? "every row sums to one less what the head's sink takes"
        : "every row sums to one";
    const apart = map.apart ? " The first word sees only itself, so its row and column are left out of the scale of colours." : "";
    fillSlots(by("map-hint"), { sums, apart });
  }

  /** Both words and the weight of the cell under the pointer, or where the arrow keys are. */
  async function readOut() {
    if (!map || !at) return;
    const { row, column, exact: alone } = at;
    const here = map;
    const level = !alone && viewer?.world.getItemCount() ? levelSeen(seen().unit) : map.floor;
    const cell = 2 ** level;
    const [r, c] = [Math.floor(row / cell), Math.floor(column / cell)];
    let tile;
    try {
      tile = await tileAt(level, Math.floor(r / TILE), Math.floor(c / TILE));
    } catch (error) {
      if (error.name !== "AbortError") app.tell(error.message);
      return;
    }
    if (here !== map || at?.row !== row || at?.column !== column) return;
    const weight = tile.data[(r % TILE) * tile.columns + (c % TILE)];
    const word = (n) => quoted(nameOfUnit(map.units[Math.min(n, map.size - 1)]));
    const span = (n) => (cell === 1 ? [word(n)] : [word(n * cell), " to ", word(n * cell + cell - 1)]);
    const exact = shown(weight, 4);
    exact.textContent = formatWeight(weight);
    const of = cell === 1 ? "" : `${app.state.reduce === "max" ? "largest" : "mean"} of ${cell} × ${cell} weights, `;
    by("map-says").replaceChildren(...span(r), cell === 1 ? " attends to " : " attend to ", ...span(c), ": ", of, exact);
    by("cell").setAttribute("aria-label", by("map-says").textContent);
    by("cell").setAttribute("aria-colindex", column + 1);
    by("cell-row").setAttribute("aria-rowindex", row + 1);
    for (const name of ["aria-rowcount", "aria-colcount"]) by("cells").setAttribute(name, map.size);
  }

  // ── Keys, controls ─────────────────────────────────────────────────────────────────────────────────────────────────

  const chooseRow = () =>
    app.go({ word: map.units[at.row], side: "from", token: 0, at: [map.units[at.row], map.units[at.column]] });

  function zoomBy(factor) {
    const OpenSeadragon = library;
    const point = at && new OpenSeadragon.Point((at.column + 0.5) / map.size, (at.row + 0.5) / map.size);
    const inside = point && viewer.viewport.getBounds().containsPoint(point);
    viewer.viewport.zoomBy(factor, inside ? point : undefined);
    viewer.viewport.applyConstraints();
  }

  by("cells").addEventListener("keydown", (event) => {
    if (!map || !viewer || event.ctrlKey || event.metaKey || event.altKey) return;
    const cell = 2 ** levelSeen(seen().unit);
    const OpenSeadragon = library;
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const actions = {
      Home: () => moveTo(at.row, 0),
      End: () => moveTo(at.row, map.size - 1),
      Enter: chooseRow,
      "+": () => zoomBy(2),
      "=": () => zoomBy(2),
      "-": () => zoomBy(0.5),
      0: () => viewer.viewport.goHome(),
    };
    if (moves[event.key]) {
      const [down, across] = moves[event.key];
      if (event.shiftKey) viewer.viewport.panBy(viewer.viewport.deltaPointsFromPixels(new OpenSeadragon.Point(80 * across, 80 * down)));
      else moveTo(at.row + down * cell, at.column + across * cell);
    } else if (actions[event.key]) actions[event.key]();
    else return;
    event.preventDefault();
  });
  by("scale").addEventListener("change", (event) => app.go({ scale: event.target.value }, { replace: true }));
  by("reduce").addEventListener("change", (event) => app.go({ reduce: event.target.value }, { replace: true }));
  by("zoom-in").addEventListener("click", () => zoomBy(2));
  by("zoom-out").addEventListener("click", () => zoomBy(0.5));
  by("zoom-all").addEventListener("click", () => viewer.viewport.goHome());
  by("jump").addEventListener("submit", (event) => {
    event.preventDefault();
    app.tell(null);
    try {
      const [from, to] = [by("jump-from").value, by("jump-to").value];
      const row = from.trim() ? app.find(from, -1) : map.units[at.row];
      const again = app.state.at?.[0] === row ? app.state.at[1] : row - 1;
      const column = to.trim() ? app.find(to, again) : row; // the same again: the next of that name
      app.go({ at: [row, column], seen: null, word: row, side: "from", token: 0 });
    } catch (error) {
      app.tell(error.message);
    }
  });

  // ── Saving ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** The cells that are seen: {level, rows, columns, weights}, rows and columns as numbers of cells. */
  async function cellsSeen() {
    const { left, top, unit } = seen();
    const level = levelSeen(unit);
    const cell = 2 ** level;
    const cells = Math.ceil(map.size / cell);
    const range = (first, room) => {
      const from = Math.max(0, Math.floor(first / cell));
      const to = Math.min(cells, Math.ceil((first + room / unit) / cell));
      return Array.from({ length: Math.max(0, to - from) }, (_, n) => from + n);
    };
    const rows = range(top, chart.clientHeight - margin);
    const columns = range(left, chart.clientWidth - margin);
    for (const row of new Set(rows.map((n) => Math.floor(n / TILE))))
      for (const column of new Set(columns.map((n) => Math.floor(n / TILE)))) await tileAt(level, row, column);
    return { level, cell, rows, columns, weights: rows.map((row) => columns.map((column) => cellOf(level, row, column))) };
  }

  async function picture() {
    const part = await cellsSeen();
    return mapPicture(app, { ...part, units: map.units, most: most(part.level), scale: scale(), apart: map.apart });
  }

  async function table() {
    const { cell, rows, columns, weights } = await cellsSeen();
    const name = (n) => app.reading.units[map.units[n * cell]];
    return [["from \\ to", ...columns.map(name)], ...rows.map((n, y) => [name(n), ...weights[y]])];
  }

  return {
    draw,
    picture,
    table,
    forget() {
      map = at = null;
      recorded = "";
      tiles = new Map();
      coming = new Map();
    },
    resize() {
      if (!map) return;
      fitLabels();
      drawLabels();
    },
  };
}
