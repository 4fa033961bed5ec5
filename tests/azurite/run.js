// Runs the blob emulator for as long as standard input stays open: however the test process ends, the emulator ends with it.
process.stdin.on("end", () => process.exit(0)).resume();
require("azurite/dist/src/blob/main.js");
