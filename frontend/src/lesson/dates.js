// What the dates model was trained to write: the date of a text as YYYY-MM-DD, in the forms of its training.

const MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September"];
MONTHS.push("October", "November", "December");
const NAMES = MONTHS.join("|");

/** The forms, as they are shown to a reader. */
export const FORMS = [
  "the 3rd of March 1987",
  "3 March 1987",
  "3rd March 1987",
  "March 3, 1987",
  "Mar 3, 1987",
  "Tuesday, 3 March 1987",
  "3.3.1987",
  "3/3/1987",
];

/** By form, with the names of its numbers; a date with points begins with the day, one with slashes with the month. */
const PATTERNS = [
  new RegExp(`^(?:the )?(?<day>\\d+)(?:st|nd|rd|th)?(?: of)? (?<month>${NAMES}) (?<year>\\d{4})$`),
  new RegExp(`^\\w+day, (?<day>\\d+) (?<month>${NAMES}) (?<year>\\d{4})$`),
  new RegExp(`^(?<month>${NAMES}|${MONTHS.map((name) => name.slice(0, 3)).join("|")}) (?<day>\\d+), (?<year>\\d{4})$`),
  /^(?<day>\d+)\.(?<month>\d+)\.(?<year>\d{4})$/,
  /^(?<month>\d+)\/(?<day>\d+)\/(?<year>\d{4})$/,
];

/**
 * The right answer; null where the text is no date in a form of the training.
 * @param {string} text
 */
export function rightDate(text) {
  const fields = PATTERNS.map((pattern) => pattern.exec(text.trim())?.groups).find(Boolean);
  if (!fields) return null;
  const name = MONTHS.findIndex((other) => other.slice(0, 3) === fields.month.slice(0, 3));
  const [month, day] = [name < 0 ? Number(fields.month) : name + 1, Number(fields.day)];
  const last = new Date(Date.UTC(Number(fields.year), month, 0)).getUTCDate();
  if (month < 1 || month > 12 || day < 1 || day > last) return null;
  return `${fields.year}-${String(month).padStart(2, "0")}-${String(day).padStart(2, "0")}`;
}
