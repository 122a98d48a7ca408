// Judges custom resources by their models: `node judge.mjs MODELS < OBJECTS`, where OBJECTS is a JSON list and MODELS holds what
// package.json names. Prints a JSON list of complaints.
//
// The models' validators look at types and required fields and let unknown fields be. So each is given an object that notes what
// is read of it: what a validator never asks for, it does not know.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const models = resolve(process.argv[2], "node_modules/@kubernetes-models");

async function validator({ apiVersion, kind }) {
  for (const name of readdirSync(models)) {
    const model = resolve(models, name, apiVersion, `${kind}.js`);
    if (!existsSync(model)) continue;
    const schema = readFileSync(model, "utf8").match(/from"[./]*(_schemas\/[^"]+)"/)[1];
    return (await import(pathToFileURL(resolve(models, name, schema)))).validate;
  }
}

// `asked` maps the path of each object to the fields asked for, or to null where all of them were gone through.
function watched(value, path, asked) {
  if (value === null || typeof value !== "object") return value;
  const copy = Array.isArray(value) ? [] : {};
  for (const [key, inner] of Object.entries(value)) copy[key] = watched(inner, `${path}/${key}`, asked);
  if (Array.isArray(value)) return copy;
  return new Proxy(copy, {
    get(target, key) {
      if (!asked.has(path)) asked.set(path, new Set());
      asked.get(path)?.add(key);
      return target[key];
    },
    ownKeys(target) {
      asked.set(path, null);
      return Reflect.ownKeys(target);
    },
  });
}

function* unknown(value, path, asked) {
  if (value === null || typeof value !== "object") return;
  const known = Array.isArray(value) ? null : asked.get(path);
  for (const [key, inner] of Object.entries(value)) {
    // The models' generator takes a field of this name for what is said of the others.
    if (key === "description") continue;
    if (known && !known.has(key)) yield `${path}/${key} is no field of it`;
    else yield* unknown(inner, `${path}/${key}`, asked);
  }
}

const complaints = [];
for (const thing of JSON.parse(readFileSync(0, "utf8"))) {
  const name = `${thing.kind} ${thing.metadata?.name}`;
  const validate = await validator(thing);
  if (!validate) {
    complaints.push(`${name}: no model of ${thing.apiVersion}`);
    continue;
  }
  const asked = new Map();
  validate(watched(thing, "", asked));
  for (const error of validate.errors ?? []) {
    complaints.push(`${name}: ${error.instancePath} ${error.keyword} ${JSON.stringify(error.params)}`);
  }
  for (const words of unknown(thing, "", asked)) complaints.push(`${name}: ${words}`);
}
console.log(JSON.stringify(complaints));
