// The usual load while the primary's database is killed and another region promoted: `loadtest/k6/run promote` does that
// half-way, and judges when first attempts failed, and how they were refused.
//
// As long as there is no primary, writes wait, and so do reads in its region, whose database is dead: no time is held. In the end
// every one is answered.
import { arrivals, duration, options as common, setup, visit, handleSummary } from './lib/load.js';
import { levels, NONE_FAILS, times } from './lib/levels.js';

export { setup, visit, handleSummary };
export const options = {
  ...common,
  scenarios: arrivals(duration('5m'), { waits: 20 }),
  thresholds: levels({
    ...NONE_FAILS,
    ...times('read', null),
    ...times('write', null),
    'godwit_attempts_failed{kind:read}': null,
    'godwit_attempts_failed{kind:write}': null,
  }),
};
