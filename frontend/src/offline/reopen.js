// A saved page saves itself again.

/** @import { Opening } from "../types.js" */

/**
 * JSON as the file has it: see _script_json in regard/viewer/bundle.py.
 * @param {object} value
 */
const scriptJson = (value) =>
  JSON.stringify(value).replace(
    /[<>&\u2028\u2029]/g,
    (sign) => `\\u${sign.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );

/**
 * The text of a page's file, made to open with a link: what is shown now.
 * @param {string} file
 * @param {Opening} opening
 * @param {string} link
 */
export const reopened = (file, opening, link) =>
  file.replace(scriptJson(opening), () => scriptJson({ ...opening, link }));
