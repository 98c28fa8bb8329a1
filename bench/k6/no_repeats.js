// Every question is new.

import exec from 'k6/execution';
import { ask, options as optionsOf, questions } from './chat.js';

export const options = optionsOf({ requests: Number(__ENV.REQUESTS || 150) });

export default function () {
  ask(questions[(exec.scenario.iterationInTest * 37) % questions.length][0]);
}
