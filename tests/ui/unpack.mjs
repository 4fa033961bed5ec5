// Unpacks the Chromium that the locked package brings, its libraries and its fonts, into node_modules/.chromium.

import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { brotliDecompressSync } from "node:zlib";

const here = import.meta.dirname;
const packed = path.join(here, "node_modules/@sparticuz/chromium/bin");
const home = path.join(here, "node_modules/.chromium");
fs.mkdirSync(home, { recursive: true });
const unpack = (name) => brotliDecompressSync(fs.readFileSync(path.join(packed, name)));
fs.writeFileSync(path.join(home, "chromium"), unpack("chromium.br"), { mode: 0o755 });
for (const name of ["al2023.tar.br", "fonts.tar.br"]) execFileSync("tar", ["-x", "--no-same-owner", "-C", home], { input: unpack(name) });
// Its own font first, so that a picture looks the same on every machine.
const first = ["sans-serif", "system-ui"].map((family) => `<alias><family>${family}</family><prefer><family>Open Sans</family></prefer></alias>`);
fs.writeFileSync(
  path.join(home, "fonts.conf"),
  `<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>${home}/fonts</dir><dir>/usr/share/fonts</dir><cachedir>${home}/font-cache</cachedir>${first.join("")}</fontconfig>
`,
);
