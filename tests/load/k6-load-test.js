// Load on a gateway's doors, by k6: webhooks as Twilio signs them, and calls asked for by /v1. It is
// run by `tests/load/run`, or against a gateway of yours:
//
//   k6 run -e URL=http://127.0.0.1:5050 -e PUBLIC_URL=https://voice.example.com \
//          -e TWILIO_AUTH_TOKEN=... -e TWILIO_ACCOUNT_SID=AC... -e KEY=cg_... -e CAP=50 \
//          -e DAILY=1000 -e CALLED=+... -e TO=+...,+...,+... tests/load/k6-load-test.js
//
// CALLED is the number of yours that callers ring. TO is whom /v1 is asked to call: the gateway dials
// these numbers, so name ones of your own, as many as calls of a day (MAX_DAILY_CALLS) or more, since
// one number is called once at a time and a few times an hour. Nobody is called whom you do not name.
//
// What it takes for granted: nobody else calls meanwhile, DAILY is MAX_DAILY_CALLS with none of it used
// yet, CAP is MAX_ACTIVE_CALLS and the cap of the campaign that answers, and there are fewer turns for placed calls than are asked for. Callers bring
// no media. k6's callers cannot know of each other, so a cap is shown by those who ring all at once
// and stay: exactly CAP of them may be connected.

import crypto from 'k6/crypto';
import exec from 'k6/execution';
import http from 'k6/http';
import { check, sleep } from 'k6';
import { Counter, Trend } from 'k6/metrics';

const url = __ENV.URL || 'http://127.0.0.1:5050';
const publicUrl = __ENV.PUBLIC_URL || url;
const token = __ENV.TWILIO_AUTH_TOKEN;
const account = __ENV.TWILIO_ACCOUNT_SID;
const key = __ENV.KEY;
const called = __ENV.CALLED;
const to = (__ENV.TO || '').split(',').filter((number) => number);
const cap = Number(__ENV.CAP || 50);
const daily = Number(__ENV.DAILY || 1000); // MAX_DAILY_CALLS.
const rate = Number(__ENV.RATE || 50); // Rings a second.
const seconds = Number(__ENV.SECONDS || 30);
// How much longer than the goals things may take: 10 for a build without optimisation.
const slack = Number(__ENV.SLACK || 1);

// How long those who ring at once stay, from the first of them on: all are answered by then.
const STAY = 8;
const PAUSE = 2;
const after = `${STAY + PAUSE}s`;

const admittedAtOnce = new Counter('admitted_at_once');
const refusedAtOnce = new Counter('refused_at_once');
const admitted = new Counter('admitted');
const refused = new Counter('refused');
const refusal = new Trend('refusal_ms', true);
const placed = new Counter('calls_placed');
const turnedAway = new Counter('calls_turned_away');

const steady = (load) => ({
  executor: 'constant-arrival-rate',
  timeUnit: '1s',
  duration: `${seconds}s`,
  startTime: after,
  preAllocatedVUs: load.rate * 2,
  maxVUs: load.rate * 4,
  ...load,
});

export const options = {
  scenarios: {
    at_once: { executor: 'per-vu-iterations', vus: cap * 3, iterations: 1, exec: 'atOnce' },
    rings: steady({ rate, exec: 'ring' }),
    dials: steady({ rate: 5, exec: 'dial' }),
    strangers: steady({ rate: 5, exec: 'stranger' }),
  },
  thresholds: {
    checks: ['rate==1'],
    http_req_failed: ['rate==0'],
    dropped_iterations: ['count==0'],
    admitted_at_once: [`count==${cap}`],
    refused_at_once: [`count==${cap * 2}`],
    admitted: ['count>0'],
    refused: ['count>0'],
    refusal_ms: [`p(99)<${250 * slack}`, `max<${2000 * slack}`],
    'http_req_duration{name:ring}': [`p(99)<${250 * slack}`],
    calls_placed: ['count>0', `count<=${daily}`],
    'calls_turned_away{code:rate_limit_exceeded}': ['count>0'],
    'calls_turned_away{code:usage_cap_exceeded}': ['count>0'],
  },
  summaryTrendStats: ['min', 'med', 'p(95)', 'p(99)', 'max', 'count'],
};

http.setResponseCallback(http.expectedStatuses(200, 201, 204, 403, 429));

export function setup() {
  const needed = ['TWILIO_AUTH_TOKEN', 'TWILIO_ACCOUNT_SID', 'KEY', 'CALLED', 'TO'];
  const missing = needed.filter((name) => !__ENV[name]);
  if (missing.length > 0) exec.test.abort(`not set: ${missing.join(', ')}; the head of this script says what each is`);
  return { began: Date.now() };
}

// Signs a form as twilio.com/docs/usage/security says.
function signature(path, form) {
  const fields = Object.keys(form).sort().map((name) => name + form[name]);
  return crypto.hmac('sha1', token, publicUrl + path + fields.join(''), 'base64');
}

function post(name, path, form, signed) {
  const headers = signed ? { 'X-Twilio-Signature': signature(path, form) } : {};
  return http.post(url + path, form, { headers, tags: { name } });
}

function hex(digits) {
  const bytes = new Uint8Array(crypto.randomBytes(digits / 2));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function digits(count) {
  return String(Math.floor(Math.random() * 10 ** count)).padStart(count, '0');
}

function caller() {
  return {
    CallSid: `CA${hex(32)}`,
    AccountSid: account,
    From: `+1555${digits(7)}`,
    To: called,
    CallStatus: 'ringing',
    ApiVersion: '2010-04-01',
    Direction: 'inbound',
  };
}

// Rings; tells whether the caller is connected.
function rings(form) {
  const answer = post('ring', '/webhook/incoming_call', form, true);
  const connected = String(answer.body).includes('<Stream ');
  check(answer, {
    'a ring is answered by TwiML': (it) => it.status === 200 && it.body.includes('<Response>'),
    'who is not connected hears why': (it) => connected || it.body.includes('<Say'),
  });
  return { connected, took: answer.timings.duration };
}

function hangUp(form) {
  const told = { ...form, CallStatus: 'completed' };
  const answer = post('status', '/webhook/call_status', told, true);
  check(answer, { 'a status is taken': (it) => it.status === 200 || it.status === 204 });
}

export function atOnce(data) {
  const form = caller();
  const { connected } = rings(form);
  (connected ? admittedAtOnce : refusedAtOnce).add(1);
  sleep(Math.max(0, STAY - (Date.now() - data.began) / 1000));
  hangUp(form);
}

export function ring() {
  const form = caller();
  const { connected, took } = rings(form);
  if (connected) {
    admitted.add(1);
    sleep(1);
  } else {
    refused.add(1);
    refusal.add(took);
  }
  hangUp(form);
}

export function dial() {
  const body = JSON.stringify({ to: to[exec.scenario.iterationInTest % to.length] });
  const headers = {
    Authorization: `Bearer ${key}`,
    'Content-Type': 'application/json',
    'Idempotency-Key': hex(32),
  };
  const answer = http.post(`${url}/v1/calls`, body, { headers, tags: { name: 'dial' } });
  if (answer.status === 201) {
    placed.add(1);
    check(answer, { 'a call that is placed has an id': (it) => !!it.json('call_id') });
    return;
  }
  const error = (answer.body && answer.json('error')) || {};
  if (answer.status !== 429) console.error(`a call that was asked for: ${answer.status} ${answer.body}`);
  turnedAway.add(1, { code: String(error.code), cap: String(error.cap) });
  check(answer, {
    'a call is placed, or there is no room': (it) => it.status === 429,
    'who is turned away is told why': () =>
      ['rate_limit_exceeded', 'usage_cap_exceeded'].includes(error.code) && !!error.cap && error.value > 0,
    'and when to ask again': (it) => Number(it.headers['Retry-After']) > 0,
  });
}

export function stranger() {
  const answer = post('stranger', '/webhook/incoming_call', caller(), false);
  check(answer, { 'who does not sign is refused': (it) => it.status === 403 });
}
