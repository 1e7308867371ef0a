// The protocol of benchmarks/queue/producer.py.
const readline = require("node:readline");
const { Queue } = require("bullmq");
const { connection, queue: name } = require("./connection.cjs");
const { sleep } = require("./marks.cjs");

const queue = new Queue(name, { connection, defaultJobOptions: { removeOnComplete: true } });
const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);

async function bulk({ task, first, count, batch }) {
  for (let start = first; start < first + count; start += batch) {
    const size = Math.min(batch, first + count - start);
    await queue.addBulk(Array.from({ length: size }, (_, i) => ({ name: task, data: { n: start + i } })));
  }
}

async function single({ task, first, count }) {
  for (let n = first; n < first + count; n++) await queue.add(task, { n });
}

async function paced({ task, first, count, rate }) {
  const began = [];
  const start = performance.now();
  for (let i = 0; i < count; i++) {
    await sleep(Math.max(0, start + (i * 1000) / rate - performance.now()));
    began.push(Number(process.hrtime.bigint()));
    await queue.add(task, { n: first + i });
  }
  return began;
}

async function main() {
  await queue.waitUntilReady();
  say({ ready: true });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const command = JSON.parse(line);
    const start = performance.now();
    const began_ns = (await { bulk, single, paced }[command.do](command)) ?? [];
    say({ seconds: (performance.now() - start) / 1000, cpu_s: process.cpuUsage().user / 1e6, began_ns });
  }
  process.exit(0);
}

main();
