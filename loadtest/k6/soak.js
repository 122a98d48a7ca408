// The usual load for hours: what grows, leaks or is forgotten to be cleaned up shows.
import { arrivals, duration, options as common, setup, visit, handleSummary } from './lib/load.js';
import { levels } from './lib/levels.js';

export { setup, visit, handleSummary };
export const options = { ...common, scenarios: arrivals(duration('4h')), thresholds: levels() };
