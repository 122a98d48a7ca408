// Writes alone, which every region but one forwards, each followed by a look at it where it was written.
import { arrivals, duration, options as common, setup, visit, handleSummary } from './lib/load.js';
import { levels } from './lib/levels.js';

export { setup, visit, handleSummary };
export const options = {
  ...common,
  scenarios: arrivals(duration('2m'), { writes: 100 }),
  thresholds: levels({ 'godwit_routed{kind:write,route:forwarded}': ['count>0'] }),
};
