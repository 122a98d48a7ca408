// The usual load while the primary is handed to another region: `loadtest/k6/run switchover` does that half-way. Writes wait at
// the gates, and none fails, not even at first.
import { arrivals, duration, options as common, setup, visit, handleSummary } from './lib/load.js';
import { levels, NONE_FAILS } from './lib/levels.js';

export { setup, visit, handleSummary };
export const options = {
  ...common,
  scenarios: arrivals(duration('5m'), { waits: 6 }),
  thresholds: levels(NONE_FAILS),
};
