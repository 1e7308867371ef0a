// The handlers' end of benchmarks/queue/marks.py. Node maps no files: a mark is one pwrite, the gate one pread.
const fs = require("node:fs");

const GATE_POLL_MS = 5;
const path = process.env.BENCH_MARKS;
const buffer = Buffer.alloc(8);
let file;

function open() {
  file = fs.openSync(path, "r+");
  fs.appendFileSync(`${path}.pids`, `${process.pid}\n`);
}

function readGate() {
  fs.readSync(file, buffer, 0, 8, 0);
  return buffer.readBigInt64LE();
}

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function enter(number, workMs) {
  if (file === undefined) open();
  let gate = readGate();
  while (BigInt(number) >= gate) {
    await sleep(GATE_POLL_MS);
    gate = readGate();
  }
  buffer.writeBigInt64LE(process.hrtime.bigint());
  fs.writeSync(file, buffer, 0, 8, 8 * (number + 1));
  if (workMs) await sleep(workMs);
}

module.exports = { enter, sleep };
