// What a run came to: summary.json and summary.html in REPORT_DIR, and a few lines on the terminal.
import { RATE } from './load.js';
import { regions } from './regions.js';

const DIR = __ENV.REPORT_DIR || '.';

function thresholds(data) {
  return Object.entries(data.metrics)
    .flatMap(([metric, { thresholds: held = {}, values }]) =>
      Object.entries(held).map(([condition, { ok }]) => ({ metric, condition, ok, values })))
    .sort((a, b) => a.metric.localeCompare(b.metric));
}

// The figure that a condition speaks of.
function figure({ metric, condition, values }) {
  const value = values[/^[a-z]+(\(\d+\))?/.exec(condition)[0]];
  if (value === undefined) return '-';
  if (metric.includes('_ms') || metric.includes('duration')) return `${value.toFixed(0)} ms`;
  return condition.startsWith('rate') ? `${(value * 100).toFixed(3)} %` : `${value}`;
}

const escape = (text) => String(text).replace(/[&<>"]/g, (one) => `&#${one.charCodeAt(0)};`);

function table(head, rows) {
  const cells = (tag, row) => row.map((cell) => `<${tag}>${escape(cell)}</${tag}>`).join('');
  const lines = rows.map((row) => `<tr class="${row.class || ''}">${cells('td', row.cells)}</tr>`).join('\n');
  return `<table><thead><tr>${cells('th', head)}</tr></thead><tbody>\n${lines}\n</tbody></table>`;
}

function figures(data) {
  return Object.entries(data.metrics)
    .filter(([name]) => name.startsWith('godwit_') || name === 'http_reqs' || name === 'dropped_iterations' || name === 'iterations')
    .sort(([a], [b]) => a.localeCompare(b))
    .map(([name, { type, values }]) => ({ cells: [name, type === 'rate' ? share(values) : words(values)] }));
}

// k6 calls those that are counted passes, whatever they are.
const share = ({ passes, fails }) => `${passes} of ${passes + fails}`;

function words(values) {
  return Object.entries(values).map(([word, value]) => `${word} ${Number(value.toFixed(1))}`).join(', ');
}

function page(facts, held, data) {
  const verdict = held.every(({ ok }) => ok) ? 'all thresholds held' : `${held.filter(({ ok }) => !ok).length} thresholds breached`;
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Godwit load test: ${escape(facts.scenario)}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #1b1f24; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #d5d9de; vertical-align: top; }
.held td:first-child::before { content: "held "; color: #1a7f37; font-weight: 600; }
.breached td:first-child::before { content: "breached "; color: #b42318; font-weight: 600; }
</style></head><body><main>
<h1>${escape(facts.scenario)}: ${verdict}</h1>
<p>${escape(facts.ended_at)}, ${facts.seconds.toFixed(0)} s, ${facts.rate} operations a second: ${
  escape(facts.regions.map(({ name, share }) => `${name} ${share} %`).join(', '))}</p>
<h2>Thresholds</h2>
${table(['metric', 'condition', 'was'], held.map((one) =>
    ({ class: one.ok ? 'held' : 'breached', cells: [one.metric, one.condition, figure(one)] })))}
<h2>Figures</h2>
${table(['metric', 'values'], figures(data))}
</main></body></html>
`;
}

export function report(data) {
  const held = thresholds(data);
  const facts = {
    scenario: __ENV.SCENARIO || 'load test',
    ended_at: new Date().toISOString(),
    seconds: data.state.testRunDurationMs / 1000,
    rate: RATE,
    regions: regions.map(({ name, url, share }) => ({ name, url, share })),
  };
  const told = held.map((one) => `  ${one.ok ? 'held    ' : 'BREACHED'} ${one.metric} ${one.condition}: ${figure(one)}`);
  const document = { ...facts, thresholds: held.map(({ values, ...one }) => one), metrics: data.metrics };
  return {
    stdout: `${facts.scenario}, ${facts.seconds.toFixed(0)} s\n${told.join('\n')}\n`,
    [`${DIR}/summary.json`]: `${JSON.stringify(document, null, 2)}\n`,
    [`${DIR}/summary.html`]: page(facts, held, data),
  };
}
