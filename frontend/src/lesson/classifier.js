// A classification head: logistic regression, trained by gradient descent on the vectors of a few sentences.

import { dot, length } from "./numbers.js";

/** @typedef {import("./numbers.js").Vector} Vector */
/** @typedef {{vector: Vector, label: 0 | 1}} Example */
/** @typedef {{weight: number[], bias: number}} Head */

const RATE = 2; // of a step, for vectors of length one
const DECAY = 0.01; // of the weights, which else grow for ever where the classes can be told apart

/** 1 / (1 + exp(−s)). @param {number} score */
export const sigmoid = (score) => 1 / (1 + Math.exp(-score));

/** A vector of length one in the same direction. @param {Vector} vector */
export function unit(vector) {
  const size = length(vector) || 1;
  return Array.from(vector, (number) => number / size);
}

/** The probability of class 1. @param {Head} head @param {Vector} vector */
export const probability = ({ weight, bias }, vector) => sigmoid(dot(weight, vector) + bias);

/** The mean of −log p of the right classes. @param {Head} head @param {Example[]} examples */
export const loss = (head, examples) =>
  examples.reduce((total, { vector, label }) => {
    const p = probability(head, vector);
    return total - Math.log(Math.max(label ? p : 1 - p, 1e-12));
  }, 0) / examples.length;

/**
 * The head after so many steps from all zeros: each step goes against the mean gradient, (p − label) x.
 * @param {Example[]} examples
 * @param {number} steps
 */
export function train(examples, steps) {
  /** @type {Head} */
  const head = { weight: Array.from(examples[0].vector, () => 0), bias: 0 };
  const losses = [loss(head, examples)];
  for (let step = 0; step < steps; step++) {
    const errors = examples.map(({ vector, label }) => probability(head, vector) - label);
    const rate = RATE / examples.length;
    head.weight = head.weight.map((number, d) => {
      const slope = errors.reduce((total, error, n) => total + error * examples[n].vector[d], 0);
      return number * (1 - DECAY * RATE) - rate * slope;
    });
    head.bias -= rate * errors.reduce((total, error) => total + error, 0);
    losses.push(loss(head, examples));
  }
  return { head, losses };
}
