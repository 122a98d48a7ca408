// The service levels, as thresholds: those of the alerts, from which levels.json is made. A user's region is what counts, so times are
// held in each region apart.
//
// A time is one that a client sees, from its first attempt to its last answer. The alerts count attempts at the server.
import { regions } from './regions.js';

const { answered, in_time: inTime, ms } = JSON.parse(open(import.meta.resolve('../levels.json')));

const percentile = (bound) => [`p(${inTime * 100})<${bound}`];
// Whole parts of a million, for 1 - 0.999 is not 0.001.
const failing = (ratio) => [`rate<${Math.round((1 - ratio) * 1e6) / 1e6}`];

// Where users are, in a scenario's own terms of time; null for none.
export function times(kind, bound) {
  const used = regions.filter(({ share }) => share > 0);
  return Object.fromEntries(used.map(({ name }) => [`godwit_${kind}_ms{region:${name}}`, bound && percentile(bound)]));
}

// `others` go over these, or with null take one away: each scenario says why.
export function levels(others = {}) {
  const all = {
    godwit_reads_failed: failing(answered.read),
    godwit_writes_failed: failing(answered.write),
    'godwit_attempts_failed{kind:read}': failing(answered.read),
    'godwit_attempts_failed{kind:write}': failing(answered.write),
    ...times('read', ms),
    ...times('write', ms),
    // What no load excuses: a session that did not see its own write.
    godwit_stale_reads: ['count==0'],
    // An answer that no retry helps against: 500, 401, another status than the API has for it.
    godwit_wrong_answers: ['count==0'],
    // Fewer operations than were to be: the figures are those of a smaller load, or of a machine that cannot make it.
    dropped_iterations: ['count==0'],
    ...others,
  };
  return Object.fromEntries(Object.entries(all).filter(([, held]) => held));
}

// For what promises that nothing fails, not even at first.
export const NONE_FAILS = {
  godwit_reads_failed: ['rate==0'],
  godwit_writes_failed: ['rate==0'],
  'godwit_attempts_failed{kind:read}': ['rate==0'],
  'godwit_attempts_failed{kind:write}': ['rate==0'],
};
