// Whether an answer is right. Pure functions of a task and an answer: the page draws what they say.

import { format, percent } from "../ui/format.js";

/** @import { Answer, ChoiceTask, Grade, NumberTask, OrderTask, Task, WeightsTask } from "./types.js" */

const ROUNDING = 1e-9; // an answer at the edge of the tolerance is within it

/** @param {string} says @returns {Grade} */
const unanswered = (says) => ({ state: "unanswered", says });

/** @param {boolean} isRight @param {string} [says] @returns {Grade} */
const graded = (isRight, says = "") => ({
  state: isRight ? "right" : "wrong",
  says: `${isRight ? "Right." : "Not quite."}${says ? ` ${says}` : ""}`,
});

/**
 * The number that somebody typed: with a comma or a point, with any minus sign, with the unit or without. A percentage
 * is a share, unless percent is the unit asked for. NaN where it is not a number.
 * @param {string} text
 * @param {string} [unit]
 */
export function numberFrom(text, unit = "") {
  let digits = text.trim().replace(/[−–]/g, "-").replace(/\s+/g, "");
  if (unit && digits.endsWith(unit)) digits = digits.slice(0, -unit.length);
  const isShare = digits.endsWith("%");
  if (isShare) digits = digits.slice(0, -1);
  digits = digits.replace(/^([+-]?\d*),(\d+)$/, "$1.$2");
  if (!/^[+-]?(\d+\.?\d*|\.\d+)$/.test(digits)) return Number.NaN;
  return Number(digits) / (isShare ? 100 : 1);
}

/**
 * The share of the weight that lies elsewhere: half the sum of the differences, 0 to 1.
 * @param {ArrayLike<number>} a
 * @param {ArrayLike<number>} b
 */
export const misplaced = (a, b) =>
  Array.from(a, (weight, n) => Math.abs(weight - b[n])).reduce((total, size) => total + size, 0) / 2;

/** @param {ChoiceTask} task @param {Answer} answer */
function gradeChoice({ right, options }, answer) {
  if (typeof answer !== "number" || !Number.isInteger(answer) || answer < 0 || answer >= options.length)
    return unanswered("Choose an answer first.");
  return graded(answer === right);
}

/** @param {NumberTask} task @param {Answer} answer */
function gradeNumber({ right, tolerance, unit }, answer) {
  const number = typeof answer === "string" ? numberFrom(answer, unit) : answer;
  if (typeof number !== "number" || !Number.isFinite(number)) return unanswered("Give a number first, such as 0.5.");
  return graded(Math.abs(number - right) <= tolerance + ROUNDING);
}

/** @param {WeightsTask} task @param {Answer} answer */
function gradeWeights({ right, tolerance }, answer) {
  const isWeights =
    Array.isArray(answer) &&
    answer.length === right.length &&
    answer.every((weight) => typeof weight === "number" && weight >= 0) &&
    Math.abs(answer.reduce((total, weight) => total + weight, 0) - 1) < 1e-6;
  if (!isWeights) return unanswered("Draw the weights first: they are positive and sum to one.");
  if (answer.every((weight) => Math.abs(weight - answer[0]) < 1e-6))
    return unanswered("All weights are still equal: move a bar first.");
  const share = misplaced(answer, right);
  return graded(
    share <= tolerance + ROUNDING,
    `${percent(share)} of the weight lies in another place than the real one.`,
  );
}

/** @param {OrderTask} task @param {Answer} answer */
function gradeOrder({ right }, answer) {
  const isOrder =
    Array.isArray(answer) &&
    answer.length === right.length &&
    right.every((place) => answer.includes(place)) &&
    new Set(answer).size === right.length;
  if (!isOrder) return unanswered("Put all of them in order first.");
  const inPlace = right.filter((place, n) => answer[n] === place).length;
  return graded(
    inPlace === right.length,
    inPlace < right.length ? `In their place: ${inPlace} of ${right.length}.` : "",
  );
}

/**
 * The grade of an answer: nonsense is unanswered, never wrong.
 * @param {Task} task
 * @param {Answer} answer
 * @returns {Grade}
 */
export function grade(task, answer) {
  if (task.kind === "choice") return gradeChoice(task, answer);
  if (task.kind === "number") return gradeNumber(task, answer);
  if (task.kind === "weights") return gradeWeights(task, answer);
  return gradeOrder(task, answer);
}

/**
 * What counts as right, in a sentence that stands beside the question.
 * @param {Task} task
 */
export function rule(task) {
  if (task.kind === "choice") return "One answer is right.";
  if (task.kind === "number") return `Right within ± ${shortest(task.tolerance)}${task.unit ? ` ${task.unit}` : ""}.`;
  if (task.kind === "weights")
    return `Right if at most ${percent(task.tolerance)} of the weight lies in the wrong place.`;
  return `From the top: ${task.ends[0]}, down to ${task.ends[1]}.`;
}

/**
 * A number with as few digits as it needs.
 * @param {number} number
 */
const shortest = (number) => format(number, 6).replace(/\.?0+$/, "");
