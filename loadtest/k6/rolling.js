// The usual load while every process of every region is restarted, one after the other: `loadtest/k6/run rolling` does that.
// No operation fails. First attempts may be refused for a moment when a process of the primary's region starts; the runner judges that.
//
// A process that has just started opens its connections to the primary, which takes two round trips more; there are as many such
// processes in minutes here as else in a day, so a second is what writes are held to.
import { arrivals, duration, options as common, setup, visit, handleSummary } from './lib/load.js';
import { levels, NONE_FAILS, times } from './lib/levels.js';

export { setup, visit, handleSummary };
export const options = {
  ...common,
  scenarios: arrivals(duration('2m')),
  thresholds: levels({
    ...NONE_FAILS,
    'godwit_attempts_failed{kind:write}': null,
    ...times('write', 1000),
  }),
};
