// The regions, what each is asked at, and its share of the requests.
//
// regions.json is made from regions.yaml. Another cluster, or the laboratory, is named by the environment:
//   GODWIT_KEY      API key with the scopes read and write
//   GODWIT_URLS     {"us-east-1": "https://...", ...}: where not at the address in regions.json
//   GODWIT_SHARES   {"us-east-1": 60, ...}: percent, for all regions
const listed = JSON.parse(open(import.meta.resolve('../regions.json'))).regions;
const urls = json('GODWIT_URLS');
const shares = json('GODWIT_SHARES');

function json(name) {
  const told = JSON.parse(__ENV[name] || '{}');
  for (const region of Object.keys(told)) {
    if (!listed[region]) throw new Error(`${name}: ${region} is no region of regions.json`);
  }
  return told;
}

export const key = __ENV.GODWIT_KEY;

export const regions = Object.entries(listed).map(([name, { url, share }]) => ({
  name,
  url: (urls[name] || url).replace(/\/$/, ''),
  share: Object.keys(shares).length ? shares[name] || 0 : share,
}));

const sum = regions.reduce((all, { share }) => all + share, 0);
if (sum !== 100) throw new Error(`the shares of the regions come to ${sum} percent`);

// The `count`-th largest, from 0.
export function bySize(count) {
  return [...regions].sort((a, b) => b.share - a.share)[count];
}

export function named(name) {
  const found = regions.find((region) => region.name === name);
  if (!found) throw new Error(`${name} is no region of regions.json`);
  return found;
}
