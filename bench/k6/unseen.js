// Every question was answered before, and each request asks one in a wording that the cache has never seen.
//
// A wording is a question with a polite opening and ending and words further apart: one vector to make and
// eight comparisons for each request, as nothing of it is remembered. Openings and endings that the cache does
// not take for the same question, for any of a sample, are left out after `setup`; others that miss show.

import { ask, options as optionsOf, prime, questions } from './chat.js';

export const options = optionsOf({ seconds: Number(__ENV.SECONDS || 20) });
const ASKED = questions.slice(0, 120);
const SAMPLE = 8;
const OPENINGS = ['', 'Hi, ', 'Hello, ', 'Please, ', 'Excuse me, ', 'Good morning, '];
const ENDINGS = ['', ' Thanks.', ' Thank you!', ' Please.'];

// The words of a question, every gap one or two spaces wide.
function spaced(text) {
  return text.split(' ').reduce((begun, word) => `${begun}${Math.random() < 0.5 ? ' ' : '  '}${word}`);
}

export function setup() {
  const whose = {};
  prime(ASKED.map((ways) => ways[0])).forEach((reply, which) => (whose[reply.id] = which));
  const frames = OPENINGS.flatMap((opening) => ENDINGS.map((ending) => [opening, ending])).filter(
    ([opening, ending], place) => {
      const sample = ASKED.map((_, which) => which).filter((which) => which % SAMPLE === place % SAMPLE);
      const found = prime(sample.map((which) => opening + spaced(ASKED[which][0]) + ending));
      found.forEach((reply, index) => (whose[reply.id] = sample[index]));
      return found.every((reply) => reply.cache !== 'miss');
    },
  );
  if (!frames.length) throw new Error('the cache takes none of the wordings for the same');
  return { whose, frames };
}

export default function ({ whose, frames }) {
  const which = Math.floor(Math.random() * ASKED.length);
  const [opening, ending] = frames[Math.floor(Math.random() * frames.length)];
  const text = opening + spaced(ASKED[which][0]) + ending;
  ask(text, { isRight: (id) => whose[id] === which, headers: { 'cache-control': 'no-store' } });
}
