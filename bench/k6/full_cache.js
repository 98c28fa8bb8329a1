// Every question was answered before, word for word.

import { ask, known, options as optionsOf, questions } from './chat.js';

export const options = optionsOf({ seconds: Number(__ENV.SECONDS || 20) });
const POPULAR = questions.slice(0, 20).map((ways) => ways[0]);

export function setup() {
  return known(POPULAR);
}

export default function (answered) {
  ask(answered[Math.floor(Math.random() * answered.length)], { isRepeat: true });
}
