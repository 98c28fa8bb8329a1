// The floor: the same questions to a route that hashes the body and answers from a dict. BARE: its URL.

import http from 'k6/http';
import { body, counted, options as optionsOf, questions } from './chat.js';

export const options = optionsOf({ seconds: Number(__ENV.SECONDS || 20) });
const POPULAR = questions.slice(0, 20).map((ways) => ways[0]);

export default function () {
  const text = POPULAR[Math.floor(Math.random() * POPULAR.length)];
  counted(http.post(__ENV.BARE, body(text), { headers: { 'content-type': 'application/json' } }));
}
