// What the scenarios have in common: the questions, the request, and how replies are counted.
//
// Environment: URL (default http://127.0.0.1:8000), MODEL, USERS (50), TOKENS (64), SECONDS or REQUESTS,
// RUN: a name that keeps what other runs left in the cache apart.

import http from 'k6/http';
import { check } from 'k6';
import { SharedArray } from 'k6/data';
import { Counter, Trend } from 'k6/metrics';

const URL = __ENV.URL || 'http://127.0.0.1:8000';
export const USERS = Number(__ENV.USERS || 50);
const TOKENS = Number(__ENV.TOKENS || 64);
const RUN = __ENV.RUN || 'alone';

const LISTS = JSON.parse(open('../../src/carpool/cli/bench_questions.json'));

// Every question as [one way to ask, others that mean the same].
export const questions = new SharedArray('questions', () =>
  LISTS.topics.flatMap((topic) => LISTS.asks.map((ways) => ways.map((way) => way.replace('{}', topic)))),
);

const outcomes = {};
for (const name of ['exact', 'joined', 'semantic', 'miss', 'bypass']) {
  outcomes[name] = new Counter(`cache_${name}`);
}
const repeats = new Counter('repeats');
const repeatsHit = new Counter('repeats_hit');
const wrongHits = new Counter('wrong_hits');
const replyTime = new Trend('reply_time', true);
// When replies came: the time from the first to the last is that of the users alone, without `setup`.
const clock = new Trend('clock');

export function options(workload) {
  const scenario = workload.requests
    ? { executor: 'shared-iterations', vus: USERS, iterations: workload.requests, maxDuration: '20m' }
    : { executor: 'constant-vus', vus: USERS, duration: `${workload.seconds}s` };
  return {
    scenarios: { users: scenario },
    setupTimeout: '20m',
    summaryTrendStats: ['avg', 'med', 'p(95)', 'p(99)', 'min', 'max'],
  };
}

export function body(text) {
  return JSON.stringify({
    model: __ENV.MODEL,
    messages: [
      { role: 'system', content: `You are a helpful assistant. This is run ${RUN}.` },
      { role: 'user', content: text },
    ],
    temperature: 0,
    // About TOKENS long: on to the end of the sentence, as a reply that is cut short is not kept.
    min_tokens: TOKENS - 8,
    max_tokens: TOKENS + 32,
    stop: ['.'],
  });
}

const HEADERS = { 'content-type': 'application/json' };

// Ask texts before the clock runs, many at the same time; returns what each reply says of the cache.
export function prime(texts) {
  const found = [];
  for (let begin = 0; begin < texts.length; begin += 32) {
    const replies = http.batch(
      texts.slice(begin, begin + 32).map((text) => ({
        method: 'POST',
        url: `${URL}/v1/chat/completions`,
        body: body(text),
        params: { headers: HEADERS, timeout: '900s' },
      })),
    );
    for (const reply of replies) {
      if (reply.status !== 200) throw new Error(`status ${reply.status}: ${reply.body}`);
      found.push({ id: reply.headers['X-Request-Id'], cache: reply.headers['X-Carpool-Cache'] });
    }
  }
  return found;
}

// Those of the texts that are answered from the cache from now on: a reply that was cut short is not kept.
export function known(texts) {
  prime(texts);
  const again = prime(texts);
  return texts.filter((_, index) => again[index].cache === 'exact');
}

// Note a reply's status and how long it took.
export function counted(reply) {
  check(reply, { 'status is 200': (r) => r.status === 200 });
  if (reply.status === 200) {
    replyTime.add(reply.timings.duration);
    clock.add(Date.now());
  }
  return reply.status === 200;
}

// `isRepeat`: it was answered before. `isRight`: whether that request's answer, by its id, serves this text.
export function ask(text, { isRepeat = false, isRight = () => false, headers = {} } = {}) {
  const params = { headers: { ...HEADERS, ...headers }, timeout: '900s' };
  const reply = http.post(`${URL}/v1/chat/completions`, body(text), params);
  if (!counted(reply)) return reply;
  const outcome = reply.headers['X-Carpool-Cache'];
  outcomes[outcome].add(1);
  if (isRepeat) {
    repeats.add(1);
    repeatsHit.add(outcome === 'exact' || outcome === 'joined' ? 1 : 0);
  }
  if (outcome === 'semantic' && !isRight(reply.headers['X-Carpool-Cache-Match'])) wrongHits.add(1);
  return reply;
}
