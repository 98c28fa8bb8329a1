// A share of the questions was answered before (REPEATS, default 0.3), the others are new.

import exec from 'k6/execution';
import { ask, known, options as optionsOf, questions } from './chat.js';

export const options = optionsOf({ requests: Number(__ENV.REQUESTS || 150) });
const SHARE = Number(__ENV.REPEATS || 0.3);
const KNOWN = questions.slice(-20).map((ways) => ways[0]);

export function setup() {
  return known(KNOWN);
}

export default function (answered) {
  const number = exec.scenario.iterationInTest;
  // Spread evenly: of any stretch of questions the share is repeats.
  const isRepeat = Math.floor((number + 1) * SHARE) > Math.floor(number * SHARE);
  if (isRepeat) ask(answered[number % answered.length], { isRepeat: true });
  else ask(questions[(number * 37) % (questions.length - 20)][0]);
}
