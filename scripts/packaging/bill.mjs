// Prints a CycloneDX document without the traces of the machine it was made on, and without crates that no feature in use asks for: the tool
// that made it takes every optional dependency for a part. Usage: node bill.mjs FILE PROJECT_FOLDER LINKED
import { readFileSync } from "node:fs";

const [file, folder, list] = process.argv.slice(2);
const bill = JSON.parse(readFileSync(file, "utf8"));
const { name, version } = bill.metadata.component;
const purl = `pkg:cargo/${name}@${version}`;

/** References to the project by its folder become references by its package url. */
function clean(value) {
  if (typeof value === "string") {
    const [, part] = value.split(`path+file://${folder}#`);
    const named = part === undefined ? value : part.replace(new RegExp(`^(${name}@)?${version}`), purl);
    return named.replace(/\?download_url=file:.*?(#|$)/, "$1");
  }
  if (Array.isArray(value)) return value.map(clean);
  if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, clean(inner)]));
  return value;
}

const linked = new Set(readFileSync(list, "utf8").split("\n").filter(Boolean));
bill.components = bill.components.filter((part) => linked.has(`${part.name} ${part.version}`));
const known = new Set(bill.components.map((part) => part["bom-ref"]));
bill.dependencies = bill.dependencies
  .filter(({ ref }) => known.has(ref) || ref === bill.metadata.component["bom-ref"])
  .map(({ ref, dependsOn = [] }) => ({ ref, dependsOn: dependsOn.filter((other) => known.has(other)) }));
delete bill.serialNumber;
const text = JSON.stringify(clean(bill), null, 1);
if (text.includes(folder)) throw new Error(`${file} names ${folder}`);
process.stdout.write(`${text}\n`);
