// Every question was answered before in other words, and the cache takes them for the same.
//
// How many it takes for the same depends on `cache.max_wrong`; those it does not are left out after `setup`. The
// wordings are few, and all were asked in `setup`, so the cache remembers their vectors: see unseen.js.

import { Gauge } from 'k6/metrics';
import { ask, options as optionsOf, prime, questions } from './chat.js';

export const options = optionsOf({ seconds: Number(__ENV.SECONDS || 20) });
const ASKED = questions.slice(0, 120);
const accepted = new Gauge('accepted_share');

export function setup() {
  // Which question each stored answer is of, by the id of its request.
  const whose = {};
  prime(ASKED.map((ways) => ways[0])).forEach((reply, which) => (whose[reply.id] = which));
  const others = ASKED.flatMap((ways, which) => ways.slice(1).map((text) => ({ text, which })));
  const found = prime(others.map((other) => other.text));
  found.forEach((reply, index) => (whose[reply.id] = others[index].which));
  const same = others.filter((_, index) => found[index].cache === 'semantic');
  accepted.add(same.length / others.length);
  if (!same.length) throw new Error('the cache takes none of the other words for the same');
  return { whose, same };
}

export default function ({ whose, same }) {
  const { text, which } = same[Math.floor(Math.random() * same.length)];
  // What misses all the same, because the search took too long, is not kept: it would be found by its words.
  ask(text, { isRight: (id) => whose[id] === which, headers: { 'cache-control': 'no-store' } });
}
