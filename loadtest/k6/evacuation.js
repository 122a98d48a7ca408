// Half-way through, the users of one region are sent to another, with the bookmarks that they have: as GeoDNS does when a
// region is drained or its health check fails. The other must bear both.
//
//   FROM, ONTO   names of regions; the two with the largest shares unless told
import exec from 'k6/execution';
import { arrivals, duration, options as common, setup, visitAt, handleSummary } from './lib/load.js';
import { levels } from './lib/levels.js';
import { bySize, named } from './lib/regions.js';

export { setup, handleSummary };
const from = __ENV.FROM ? named(__ENV.FROM) : bySize(0);
const onto = __ENV.ONTO ? named(__ENV.ONTO) : bySize(1);
if (from.name === onto.name) throw new Error(`${from.name} cannot be evacuated onto itself`);

export function visit(shared) {
  const own = named(__ENV.REGION);
  const moved = own.name === from.name && exec.scenario.progress >= 0.5;
  visitAt(moved ? onto : own, shared, Number(__ENV.WRITES));
}

export const options = { ...common, scenarios: arrivals(duration('5m')), thresholds: levels() };
