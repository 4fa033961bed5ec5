// A picture of a soak: one strip a measure over time, as PNG, drawn and packed without any other program.
import { crc32, deflateSync } from "node:zlib";

const [WIDTH, STRIP, LEFT, TOP] = [1000, 130, 150, 40];
const STRIPS = [
  ["rss_mib", "MEMORY MIB", [31, 119, 180]],
  ["fds", "DESCRIPTORS", [214, 39, 40]],
  ["threads", "THREADS", [44, 160, 44]],
  ["tasks", "TASKS", [148, 103, 189]],
  ["lag_s", "LAG S", [255, 127, 14]],
];
/// Three columns by five rows a letter, a digit in base 8 a row.
const GLYPHS = {
  A: "25755", B: "65656", C: "34443", D: "65556", E: "74647", F: "74644", G: "34553", H: "55755", I: "72227", J: "11152", K: "55655",
  L: "44447", M: "57755", N: "65555", O: "25552", P: "65644", Q: "25563", R: "65655", S: "34216", T: "72222", U: "55557", V: "55552",
  W: "55775", X: "55255", Y: "55222", Z: "71247", 0: "75557", 1: "26227", 2: "71747", 3: "71717", 4: "55711", 5: "74717", 6: "74757",
  7: "71122", 8: "75757", 9: "75717", ".": "00002", ",": "00024", ":": "02020", "/": "11244", "-": "00700", " ": "00000",
};

class Picture {
  constructor(width, height) {
    Object.assign(this, { width, height, pixels: Buffer.alloc(width * height * 3, 255) });
  }

  dot(x, y, colour) {
    if (x >= 0 && y >= 0 && x < this.width && y < this.height) this.pixels.set(colour, (Math.round(y) * this.width + Math.round(x)) * 3);
  }

  line(x1, y1, x2, y2, colour) {
    const steps = Math.max(Math.abs(x2 - x1), Math.abs(y2 - y1), 1);
    for (let i = 0; i <= steps; i += 1) {
      const [x, y] = [Math.round(x1 + ((x2 - x1) * i) / steps), Math.round(y1 + ((y2 - y1) * i) / steps)];
      this.dot(x, y, colour);
      this.dot(x, y + 1, colour);
    }
  }

  text(x, y, text, size = 2, colour = [60, 60, 60]) {
    [...text.toUpperCase()].forEach((letter, n) => {
      [...(GLYPHS[letter] ?? GLYPHS["-"])].forEach((bits, row) => {
        for (let column = 0; column < 3; column += 1) {
          if (!((Number(bits) >> (2 - column)) & 1)) continue;
          for (let i = 0; i < size * size; i += 1) this.dot(x + (n * 4 + column) * size + (i % size), y + row * size + Math.floor(i / size), colour);
        }
      });
    });
  }

  png() {
    const rows = Buffer.alloc(this.height * (this.width * 3 + 1));
    for (let y = 0; y < this.height; y += 1) this.pixels.copy(rows, y * (this.width * 3 + 1) + 1, y * this.width * 3, (y + 1) * this.width * 3);
    const head = Buffer.alloc(13);
    head.writeUInt32BE(this.width, 0);
    head.writeUInt32BE(this.height, 4);
    head.set([8, 2, 0, 0, 0], 8);
    return Buffer.concat([
      Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]),
      chunk("IHDR", head), chunk("IDAT", deflateSync(rows, { level: 9 })), chunk("IEND", Buffer.alloc(0)),
    ]);
  }
}

function chunk(name, data) {
  const [length, sum, body] = [Buffer.alloc(4), Buffer.alloc(4), Buffer.concat([Buffer.from(name), data])];
  length.writeUInt32BE(data.length);
  sum.writeUInt32BE(crc32(body));
  return Buffer.concat([length, body, sum]);
}

export function plot(samples, title) {
  const picture = new Picture(WIDTH, TOP + STRIPS.length * STRIP + 30);
  const end = samples.at(-1).seconds;
  const right = WIDTH - 20;
  picture.text(12, 14, title);
  STRIPS.forEach(([name, label, colour], n) => {
    const [top, bottom] = [TOP + n * STRIP + 10, TOP + (n + 1) * STRIP - 12];
    const highest = Math.max(...samples.map((one) => one[name]), 1) * 1.1;
    const x = (one) => LEFT + (one.seconds / end) * (right - LEFT);
    const y = (one) => bottom - (one[name] / highest) * (bottom - top);
    picture.text(12, top, label);
    picture.text(12, top + 18, `MAX ${Number(Math.max(...samples.map((one) => one[name])).toFixed(1))}`);
    picture.text(12, top + 36, `END ${Number(samples.at(-1)[name].toFixed(1))}`);
    picture.text(LEFT - 14, bottom - 9, "0", 2, [150, 150, 150]);
    picture.line(LEFT, bottom, right, bottom, [200, 200, 200]);
    picture.line(LEFT, top, LEFT, bottom, [200, 200, 200]);
    samples.slice(1).forEach((one, i) => picture.line(x(samples[i]), y(samples[i]), x(one), y(one), colour));
  });
  const foot = TOP + STRIPS.length * STRIP + 6;
  for (let i = 0; i <= 4; i += 1) {
    const text = `${Number(((end * i) / 240).toFixed(1))} MIN`;
    picture.text(Math.min(LEFT + ((right - LEFT) * i) / 4, right - text.length * 8), foot, text);
  }
  return picture.png();
}
