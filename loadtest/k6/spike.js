// Five times the usual load within seconds, held for a while, and back.
import { arrivals, duration, options as common, seconds, setup, visit, handleSummary } from './lib/load.js';
import { levels } from './lib/levels.js';

export { setup, visit, handleSummary };
const PEAK = Number(__ENV.PEAK || 5);
const parts = (of) => `${Math.round(seconds(duration('3m')) * of)}s`;
export const options = {
  ...common,
  scenarios: arrivals(duration('3m'), {
    stages: [
      { part: 1, lasts: parts(0.3) },
      { part: PEAK, lasts: '5s' },
      { part: PEAK, lasts: parts(0.3) },
      { part: 1, lasts: '5s' },
      { part: 1, lasts: parts(0.3) },
    ],
  }),
  thresholds: levels(),
};
