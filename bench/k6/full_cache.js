// Every question was answered before, word for word.

import { ask, options as optionsOf, prime, questions } from './chat.js';

export const options = optionsOf({ seconds: Number(__ENV.SECONDS || 20) });
const POPULAR = questions.slice(0, 20).map((ways) => ways[0]);

export function setup() {
  prime(POPULAR);
}

export default function () {
  ask(POPULAR[Math.floor(Math.random() * POPULAR.length)], { isRepeat: true });
}
