// What the view Sentence draws of a long text.

export const WORDS_WITH_LINES = 32; // up to so many words, the lines of all of them are drawn while none is chosen
export const WORDS_IN_COLUMN = 400; // up to so many words, both columns hold all
export const WORDS_AROUND = 100; // words around the chosen one that its column holds of a longer text
export const WORDS_ACROSS = 120; // and words that the other column holds, those with the largest weights
export const WEIGHT_OF_A_LINE = 0.01; // of the peak, which is 1 for weights: a smaller one gets no line
