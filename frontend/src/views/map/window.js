// The window onto the map: OpenSeadragon, which moves and zooms it.

/** @import { Seen } from "./levels.js" */
/**
 * @typedef {object} Listeners
 * @property {() => void} moved the map is moving
 * @property {() => void} settled it has come to rest
 * @property {(point: {x: number, y: number}) => void} clicked
 * @property {(point: {x: number, y: number}) => void} pointed
 */

const OPTIONS = {
  drawer: "canvas",
  prefixUrl: "",
  showNavigationControl: false,
  imageSmoothingEnabled: false,
  smoothTileEdgesMinZoom: Infinity,
  immediateRender: true,
  blendTime: 0,
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
};

export class MapWindow {
  /** @param {any} OpenSeadragon @param {HTMLElement} element @param {Listeners} on */
  constructor(OpenSeadragon, element, on) {
    this.OpenSeadragon = OpenSeadragon;
    OpenSeadragon.console = { ...console, warn() {} }; // it warns of tiles that come too late, which are kept all the same
    const animationTime = matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 0.35;
    const viewer = OpenSeadragon({ element, ...OPTIONS, animationTime });
    viewer.innerTracker.keyDownHandler = viewer.innerTracker.keyHandler = null; // controls.js handles the keys
    viewer.canvas.tabIndex = -1;
    viewer.canvas.setAttribute("aria-hidden", "true");
    for (const event of ["update-viewport", "resize"]) viewer.addHandler(event, on.moved);
    viewer.addHandler("animation-finish", on.settled);
    viewer.addHandler("canvas-click", (/** @type {any} */ event) => event.quick && on.clicked(event.position));
    new OpenSeadragon.MouseTracker({
      element: viewer.container,
      moveHandler: (/** @type {any} */ event) => event.pointerType !== "touch" && on.pointed(event.position),
    });
    this.viewer = viewer;
    this.side = 1; // of the square that holds all of the map, in widths of it
  }

  /**
   * Px.
   * @returns {number}
   */
  get width() {
    return this.viewer.container.clientWidth;
  }

  /**
   * Px.
   * @returns {number}
   */
  get height() {
    return this.viewer.container.clientHeight;
  }

  isEmpty() {
    return !this.viewer.world.getItemCount();
  }

  /**
   * What is seen of a map so many units wide.
   * @param {number} size
   * @returns {Seen}
   */
  seen(size) {
    const bounds = this.viewer.viewport.getBoundsNoRotate(true);
    return { left: bounds.x * size, top: bounds.y * size, unit: this.width / (bounds.width * size) };
  }

  /**
   * Shows the tiles of a source, in the place of those before; `stay` keeps what is seen where it is.
   * @param {any} tileSource
   * @param {{tall: number, wide: number}} matrix how many rows and columns it has
   * @param {boolean} stay
   * @returns {Promise<void>}
   */
  show(tileSource, { tall, wide }, stay) {
    const { viewer } = this;
    const replace = !this.isEmpty();
    this.side = Math.max(1, tall / wide);
    viewer.maxZoomPixelRatio = Math.max(64, (1.25 * this.width) / wide);
    return new Promise((done) =>
      viewer.addTiledImage({
        tileSource,
        index: 0,
        replace,
        success: () => {
          viewer.viewport.maxZoomPixelRatio = viewer.maxZoomPixelRatio;
          if (!(stay && replace)) this.showAll(true);
          done();
        },
        error: () => done(),
      }),
    );
  }

  /**
   * Shows the whole map, from its first row and column on, so that its words stand beside it.
   * @param {boolean} [now] without moving there
   */
  showAll(now = false) {
    this.fit(0, 0, this.side, this.side, now);
  }

  /**
   * Shows a rectangle of a map that is 1 wide.
   * @param {number} x
   * @param {number} y
   * @param {number} width
   * @param {number} height
   * @param {boolean} now
   */
  fit(x, y, width, height, now) {
    this.viewer.viewport.fitBounds(new this.OpenSeadragon.Rect(x, y, width, height), now);
  }

  /** @param {number} dx px @param {number} dy px */
  panBy(dx, dy) {
    const { viewport } = this.viewer;
    viewport.panBy(viewport.deltaPointsFromPixels(new this.OpenSeadragon.Point(dx, dy)));
  }

  /**
   * Zooms about a point of the map that is 1 wide, if it is in the window, or else about the middle.
   * @param {number} factor
   * @param {[number, number] | null} center
   */
  zoomBy(factor, center) {
    const { viewport } = this.viewer;
    const point = center && new this.OpenSeadragon.Point(...center);
    viewport.zoomBy(factor, point && viewport.getBounds().containsPoint(point) ? point : undefined);
    viewport.applyConstraints();
  }
}
