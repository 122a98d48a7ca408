// Reads and writes from every region by its share: what a usual day looks like.
import { arrivals, duration, options as common, setup, visit, handleSummary } from './lib/load.js';
import { levels } from './lib/levels.js';

export { setup, visit, handleSummary };
export const options = { ...common, scenarios: arrivals(duration('5m')), thresholds: levels() };
