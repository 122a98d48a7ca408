// Reads alone, each where its user is: no primary is asked, and none is needed.
import { arrivals, duration, options as common, setup, visit, handleSummary } from './lib/load.js';
import { levels, times } from './lib/levels.js';

export { setup, visit, handleSummary };
export const options = {
  ...common,
  scenarios: arrivals(duration('2m'), { writes: 0 }),
  thresholds: levels({
    // Nobody writes.
    ...times('write', null),
    godwit_writes_failed: null,
    'godwit_attempts_failed{kind:write}': null,
    // Not one read leaves its region.
    'godwit_routed{kind:read,route:forwarded}': ['count==0'],
  }),
};
