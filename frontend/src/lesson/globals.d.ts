declare const PLAIN_PLACES: Record<string, string>; // defined by build.js
