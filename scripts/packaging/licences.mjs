// Prints the licence of every crate in the program: one list, then each text once with the crates it belongs to.
// Usage: cargo metadata --format-version 1 --locked | node licences.mjs LINKED, a file with "name version" of each crate a line.
import { readFileSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";

const metadata = JSON.parse(readFileSync(0, "utf8"));
const linked = readFileSync(process.argv[2], "utf8").split("\n").filter(Boolean);

const title = (one) => `${one.name} ${one.version}`;

/** The texts that come with a crate, by file name. */
function texts(one) {
  const folder = dirname(one.manifest_path);
  const names = readdirSync(folder).filter((name) => /^(licen[cs]e|copying|notice|copyright|unlicense)/i.test(name));
  const named = one.license_file && !names.includes(one.license_file) ? [one.license_file] : [];
  const read = (name) => {
    try {
      return readFileSync(join(folder, name), "utf8").replace(/\r\n/g, "\n").trim();
    } catch (error) {
      if (error.code === "EISDIR") return "";
      throw error;
    }
  };
  return [...names, ...named].sort().map(read).filter(Boolean);
}

const rule = "=".repeat(100);
const packages = new Map(metadata.packages.map((one) => [title(one), one]));
const crates = linked.map((name) => packages.get(name));
const unlicensed = crates.filter((one) => !one.license && !one.license_file);
if (unlicensed.length) throw new Error(`no licence: ${unlicensed.map(title).join(", ")}`);

const owners = new Map();
const silent = [];
for (const one of crates) {
  const found = texts(one);
  if (!found.length) silent.push(one);
  for (const text of found) owners.set(text, [...(owners.get(text) ?? []), title(one)]);
}

const lines = [
  `opship is built from these ${crates.length} crates. Where a licence reads "A OR B", opship takes either. Their texts follow the list.`,
  "",
  ...crates.map((one) => `${title(one)}: ${one.license ?? one.license_file} (${one.repository ?? "no repository named"})`),
  "",
  "Also in the program: the Rust standard library, MIT OR Apache-2.0 (https://github.com/rust-lang/rust).",
  "The program in the container image is linked statically with the GNU C Library, LGPL-2.1-or-later",
  "(https://www.gnu.org/software/libc/), and GCC's unwinder, GPL-3.0-or-later with the GCC Runtime Library Exception.",
  "opship's own source, its build and scripts/package, which relinks it with another C library, are public.",
  "The list of certificate authorities in the image is Mozilla's, MPL-2.0 (https://github.com/certifi/python-certifi).",
];
if (silent.length) {
  lines.push("", "These crates are published without the text of their licence; it is among the texts below, in the words of others:");
  lines.push(...silent.map((one) => `  ${title(one)}: ${one.license}; authors: ${one.authors.join(", ") || "not named"}`));
}
for (const [text, titles] of owners) lines.push("", rule, titles.join(", "), rule, "", text);
process.stdout.write(`${lines.join("\n")}\n`);
