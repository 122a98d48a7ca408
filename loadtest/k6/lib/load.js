// The load: sessions that arrive in each region by its share, whatever becomes of those before them.
//
//   RATE            operations begun in a second, in all regions together
//   DURATION        as in 30s, 5m, 4h
//   WRITE_PERCENT   of a hundred operations, how many write
//
// Each virtual user is a client with a session of its own: a write is followed by a read of what was written.
import { uuid } from './uuid.js';
import { key, regions } from './regions.js';
import { Session, note } from './client.js';
import { report } from './report.js';

export const RATE = Number(__ENV.RATE || 40);

export function seconds(text) {
  const units = { ms: 0.001, s: 1, m: 60, h: 3600 };
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g)];
  if (!parts.length || parts.map(([part]) => part).join('') !== text) throw new Error(`${text} is no duration such as 30s or 5m`);
  return parts.reduce((all, [, count, unit]) => all + Number(count) * units[unit], 0);
}

export function duration(otherwise) {
  return __ENV.DURATION || otherwise;
}

// A session that is refused tries again for half a minute, and then ends by itself.
const STOP = '45s';
// A visit is over within a second or two. More users than that are made as they are needed, up to what an outage of half a minute takes.
const VISIT_S = 2;
const OUTAGE_S = 40;

// A share of a rate, in operations a minute: shares of small rates are no whole numbers of a second.
function aMinute(rate, share) {
  return Math.max(1, Math.round((rate * share * 60) / 100));
}

// One k6 scenario for each region that has a share. `stages` gives its course in parts of the rate, else it is constant; `waits` is
// how many seconds' arrivals may have to wait, so that the users for them are there beforehand: k6 leaves out those that
// it has to make users for first.
export function arrivals(lasts, { stages, waits = VISIT_S, writes = Number(__ENV.WRITE_PERCENT || 20) } = {}) {
  const peak = Math.max(1, ...(stages || []).map(({ part }) => part));
  const each = ({ name, share }) => {
    const rate = aMinute(RATE, share);
    const users = (seconds) => Math.max(5, Math.ceil((peak * rate * seconds) / 60));
    const common = {
      timeUnit: '1m', preAllocatedVUs: users(waits), maxVUs: users(Math.max(waits, OUTAGE_S)),
      gracefulStop: STOP, exec: 'visit', env: { REGION: name, WRITES: `${writes}` }, tags: { from: name },
    };
    if (!stages) return [name, { executor: 'constant-arrival-rate', rate, duration: lasts, ...common }];
    const course = stages.map(({ part, lasts: long }) => ({ target: Math.round(part * rate), duration: long }));
    return [name, { executor: 'ramping-arrival-rate', startRate: rate, stages: course, ...common }];
  };
  return Object.fromEntries(regions.filter(({ share }) => share > 0).map(each));
}

export const options = {
  discardResponseBodies: false,
  summaryTrendStats: ['med', 'p(90)', 'p(95)', 'p(99)', 'max', 'count'],
  userAgent: 'godwit-loadtest',
  setupTimeout: '2m',
};

const ITEMS = 50;

// Items to read, and the bookmark from which every region must have them.
export function setup() {
  if (!key) throw new Error('GODWIT_KEY is missing: an API key with the scopes read and write');
  const run = uuid();
  const collection = `loadtest-${run}`;
  // Before the load, one after the other: what it came to is not what users saw.
  const session = new Session({ counted: false });
  const ids = [];
  for (let item = 0; item < ITEMS; item += 1) {
    if (!session.create(regions[0], collection, { key: `${run}-${item}`, item })) throw new Error(`${regions[0].name} takes no writes`);
    ids.push(session.own);
  }
  note({ collection, began: Date.now() });
  return { run, collection, ids, bookmark: session.bookmark, began: Date.now() };
}

let session = null;
let writes = 0;

// One operation of this user in a region, and after a write the look at it.
export function visitAt(region, shared, writePercent) {
  session = session || new Session({ bookmark: shared.bookmark });
  const { collection, ids, run } = shared;
  if (Math.random() * 100 < writePercent) {
    writes += 1;
    const data = { key: `${run}-${__VU}-${writes}`, from: region.name, text: 'A few words, as an item has them.' };
    if (session.create(region, collection, data)) session.readOwn(region, collection);
  } else if (Math.random() < 0.25) {
    session.read(region, `/v1/collections/${collection}/items?limit=20`);
  } else {
    session.read(region, `/v1/collections/${collection}/items/${ids[Math.floor(Math.random() * ids.length)]}`);
  }
}

export function visit(shared) {
  visitAt(regions.find(({ name }) => name === __ENV.REGION), shared, Number(__ENV.WRITES));
}

export const handleSummary = report;
