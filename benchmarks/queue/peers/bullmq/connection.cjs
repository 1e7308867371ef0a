const url = new URL(process.env.BENCH_REDIS_URL);

module.exports = {
  queue: "bench",
  connection: { host: url.hostname, port: Number(url.port), maxRetriesPerRequest: null },
};
