// worker.cjs SLOTS
const { Worker } = require("bullmq");
const { connection, queue } = require("./connection.cjs");
const { enter } = require("./marks.cjs");

const WORK_MS = { noop: 0, work_1ms: 1 };

new Worker(queue, (job) => enter(job.data.n, WORK_MS[job.name]), {
  connection,
  concurrency: Number(process.argv[2]),
});
