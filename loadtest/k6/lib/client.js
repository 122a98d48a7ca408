// A client of the API as its documents bid it be: it passes its bookmark along, writes under an idempotency key, and
// tries again what may be tried again.
//
// Tried again, with the same key, until PATIENCE_MS after the first attempt: an answer with Retry-After (503, 429, and 409
// `idempotency-in-flight`), after as long as it says; 502 and 504 of a balancer, and no answer at all, after a
// second. The next attempt goes to the same region, unless nothing answers there (`elsewhere`).
import http from 'k6/http';
import { sleep } from 'k6';
import { Counter, Rate, Trend } from 'k6/metrics';
import { key, regions } from './regions.js';

const PATIENCE_MS = Number(__ENV.PATIENCE_MS || 30000);
// A little longer than a region takes to give up (`routing.request_ms_max`), so that it is the region that says so.
const ANSWER_MAX = '12s';
const PAUSE_S = 1;
// So that clients that were refused together do not come again together.
const JITTER_S = 0.25;

// Operations, after all attempts.
export const readsFailed = new Rate('godwit_reads_failed');
export const writesFailed = new Rate('godwit_writes_failed');
// First attempts, of reads and writes.
export const attemptsFailed = new Rate('godwit_attempts_failed');
export const readMs = new Trend('godwit_read_ms', true);
export const writeMs = new Trend('godwit_write_ms', true);
export const stale = new Counter('godwit_stale_reads');
export const wrong = new Counter('godwit_wrong_answers');
export const routed = new Counter('godwit_routed');

// For loadtest/k6/run, which reads every acknowledged write back, and judges when the others failed.
const LEDGER = __ENV.LEDGER === '1';
export function note(line) {
  if (LEDGER) console.log(JSON.stringify(line));
}

function header(answer, name) {
  const found = Object.keys(answer.headers).find((one) => one.toLowerCase() === name);
  return found && answer.headers[found];
}

function problem(answer) {
  const type = /"type":\s*"urn:godwit:problem:([a-z-]+)"/.exec(answer.body || '');
  return type ? type[1] : null;
}

// The seconds of a Retry-After, which is a number of them or a date (RFC 9110, 10.2.3); null for what is neither.
function secondsOf(told) {
  if (/^\d+$/.test(told)) return Number(told);
  const at = Date.parse(told);
  return Number.isNaN(at) ? null : Math.max(0, (at - Date.now()) / 1000);
}

// Whether the same request may be sent again, and after how many seconds. One that is not told when is not to be.
export function pause(answer) {
  const told = header(answer, 'retry-after');
  const told_to = answer.status === 503 || answer.status === 429 || answer.status === 409;
  if (told_to && told !== undefined) return secondsOf(told);
  return [0, 502, 504].includes(answer.status) ? PAUSE_S : null;
}

export class Session {
  // One that is not counted is in the ledger, and in no metric.
  constructor({ bookmark, counted = true } = {}) {
    this.bookmark = bookmark;
    this.counted = counted;
    // The last item that this session has written.
    this.own = null;
  }

  // One operation in a region: { status, body, elsewhere... } of the last answer.
  operation(kind, region, method, path, body, expected) {
    const began = Date.now();
    const failed = kind === 'write' ? writesFailed : readsFailed;
    const ms = kind === 'write' ? writeMs : readMs;
    const idempotency = body === null ? null : JSON.parse(body).key;
    let at = region;
    for (let attempt = 1; ; attempt += 1) {
      const asked = Date.now();
      const answer = this.ask(kind, at, method, path, body, idempotency);
      const ended = Date.now();
      const well = expected.includes(answer.status);
      const told = problem(answer);
      const again = well ? null : pause(answer);
      // It has a bookmark now that is not lost.
      const goesOn = told === 'bookmark-lost' ? 0 : again;
      if (this.counted && attempt === 1) attemptsFailed.add(!well, { kind, region: region.name });
      if (!well) {
        note({
          failed: kind, key: idempotency, region: at.name, attempt, asked, ended, status: answer.status, problem: told,
          retry_after: header(answer, 'retry-after') || null, error: answer.error || null,
        });
      }
      const over = ended + (goesOn || 0) * 1000 - began > PATIENCE_MS;
      if (well || goesOn === null || over) {
        if (this.counted) {
          if (!well && goesOn === null) wrong.add(1, { kind, region: region.name, status: `${answer.status}` });
          failed.add(!well, { region: region.name });
          if (well) ms.add(ended - began, { region: region.name });
        }
        if (!well) note({ given_up: kind, key: idempotency, region: region.name, began, ended });
        return { well, answer, began, ended };
      }
      if (answer.status === 0) at = elsewhere(at);
      sleep(goesOn + Math.random() * JITTER_S);
    }
  }

  ask(kind, region, method, path, body, idempotency) {
    const headers = { Authorization: `Bearer ${key}` };
    if (this.bookmark) headers['Godwit-Bookmark'] = this.bookmark;
    if (body !== null) {
      headers['Content-Type'] = 'application/json';
      headers['Idempotency-Key'] = idempotency;
    }
    const name = path.replace(/[0-9a-f]{8}-[0-9a-f-]{27}/, '{id}').replace(/\?.*/, '');
    const tags = { name: `${method} ${name}`, kind, region: region.name };
    const answer = http.request(method, `${region.url}${path}`, body, { headers, tags, timeout: ANSWER_MAX, redirects: 0 });
    this.bookmark = header(answer, 'godwit-bookmark') || resume(answer) || this.bookmark;
    const route = header(answer, 'godwit-route');
    if (route && this.counted) routed.add(1, { route, kind, region: region.name });
    return answer;
  }

  create(region, collection, data) {
    const body = JSON.stringify(data);
    const made = this.operation('write', region, 'POST', `/v1/collections/${collection}/items`, body, [201]);
    if (made.well) {
      const id = made.answer.json('id');
      this.own = id;
      note({ acknowledged: id, key: data.key, region: region.name, began: made.began, ended: made.ended });
    }
    return made.well;
  }

  // Its own last write, which it must see wherever it reads.
  readOwn(region, collection) {
    const path = `/v1/collections/${collection}/items/${this.own}`;
    const { answer } = this.operation('read', region, 'GET', path, null, [200, 404]);
    if (answer.status === 404) stale.add(1, { region: region.name });
  }

  read(region, path) {
    return this.operation('read', region, 'GET', path, null, [200]);
  }
}

// As a client goes on whose region's name leads elsewhere by now: the next one of the list.
function elsewhere(region) {
  return regions[(regions.findIndex(({ name }) => name === region.name) + 1) % regions.length];
}

// With 409 `bookmark-lost` comes the bookmark to go on from.
function resume(answer) {
  return problem(answer) === 'bookmark-lost' ? answer.json('bookmark') : null;
}
