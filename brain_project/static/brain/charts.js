// Draws the charts of the page once, and gives them new data whenever htmx has brought some. What somebody has switched
// off stays off, and nothing flickers. The data is the JSON in #brain-chart-data; see queue_app/admin/statistics.py and
// gateway/admin/traffic.py.
(() => {
  "use strict";
  const drawn = new Map(); // chart's id → Chart
  const TIMES = [[172800, 86400, "d"], [7200, 3600, "h"], [120, 60, "min"], [1, 1, "s"]]; // as figures.py
  const COARSE_S = [0.0001, 0.001, 0.01, 0.1, 1, 10, 60, 600, 3600, 21600, 86400, 864000];
  const FINE_S = [
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800,
    3600, 7200, 21600, 43200, 86400, 172800, 432000, 864000, 8640000,
  ];
  const STACKED = { completed: "completed", failed: "failed", dead: "dead", cancelled: "cancelled" };
  const CLASSES = { "2xx": "completed", "3xx": "p50", "4xx": "failed", "5xx": "dead" };
  const COLOURS = { ...STACKED, ...CLASSES, errors: "dead", p50: "p50", p95: "p95", p99: "p99", "failed runs": "dead" };

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--brain-${name}`).trim();
  const rounded = (value) => (value < 99.95 ? String(Math.round(value * 10) / 10) : String(Math.round(value)));

  function duration(seconds) {
    if (seconds <= 0) return "0 s";
    if (seconds < 0.9995) {
      const ms = seconds * 1000;
      return `${ms < 1 ? rounded(ms) : Math.round(ms)} ms`;
    }
    const [, size, unit] = TIMES.find(([least]) => seconds >= least * 0.9995);
    return `${rounded(seconds / size)} ${unit}`;
  }

  function count(value) {
    for (const [size, unit] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
      if (value >= size * 0.9995) return rounded(value / size) + unit;
    }
    return rounded(value);
  }

  const share = (value) => `${rounded(value * 100)} %`;
  const WORDS = { seconds: duration, count, share };
  const told = (value, unit) => (value === null || value === undefined ? "–" : WORDS[unit](value));

  // A value between two gaps has no line that leads to it: only those get a dot.
  function radius(context) {
    const values = context.dataset.data;
    const at = context.dataIndex;
    return (values[at - 1] ?? null) === null && (values[at + 1] ?? null) === null ? 2.5 : 0;
  }

  function dataset(chart, line) {
    const name = COLOURS[line.name];
    const paint = colour(name);
    const common = { label: line.name, data: line.values, backgroundColor: paint, borderColor: paint };
    if (chart.kind === "bars") return { ...common, borderWidth: 0, barPercentage: 1, categoryPercentage: 0.85 };
    return {
      ...common, borderWidth: 2, tension: 0, pointRadius: radius, pointHoverRadius: 4, pointHitRadius: 8, spanGaps: false,
    };
  }

  // From milliseconds to days: on a linear axis the 99th percentile presses the median to the floor.
  function times() {
    const between = (ticks, axis) => ticks.filter((value) => value >= axis.min * 0.999 && value <= axis.max * 1.001);
    return {
      type: "logarithmic", border: { display: false }, ticks: { callback: duration },
      afterDataLimits: (axis) => {
        const lowest = FINE_S.findLast((value) => value <= axis.min) ?? FINE_S[0];
        axis.max = FINE_S.find((value) => value >= axis.max && value > lowest) ?? FINE_S.at(-1);
        axis.min = lowest;
      },
      afterBuildTicks: (axis) => {
        const coarse = between(COARSE_S, axis);
        axis.ticks = (coarse.length > 3 ? coarse : between(FINE_S, axis)).map((value) => ({ value }));
      },
    };
  }

  function options(chart) {
    const stacked = chart.kind === "bars";
    return {
      animation: false,
      responsive: true,
      maintainAspectRatio: false,
      interaction: { mode: "index", intersect: false },
      plugins: {
        legend: { display: false }, // ours are buttons, for the keyboard too
        tooltip: {
          callbacks: { label: (item) => ` ${item.dataset.label}: ${told(item.raw, chart.unit)}` },
        },
      },
      scales: {
        x: { stacked, grid: { display: false }, ticks: { maxRotation: 0, autoSkip: true, autoSkipPadding: 16 } },
        y: chart.unit === "seconds" ? times() : {
          stacked, beginAtZero: true, suggestedMax: chart.unit === "count" ? 1 : 0.05, border: { display: false },
          ticks: { maxTicksLimit: 5, precision: chart.unit === "count" ? 0 : undefined, callback: (value) => told(value, chart.unit) },
        },
      },
    };
  }

  function paint(chart) {
    const text = colour("axis");
    for (const scale of [chart.options.scales.x, chart.options.scales.y]) {
      scale.ticks.color = text;
      scale.grid.color = colour("grid");
      scale.border = { ...scale.border, color: colour("grid") };
    }
    for (const line of chart.data.datasets) line.backgroundColor = line.borderColor = colour(COLOURS[line.label]);
  }

  // Buttons that switch a line off and on.
  function legend(box, chart) {
    box.replaceChildren(
      ...chart.data.datasets.map((line, at) => {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = line.label;
        button.style.setProperty("--line", `var(--brain-${COLOURS[line.label]})`);
        button.setAttribute("aria-pressed", "true");
        button.addEventListener("click", () => {
          const on = !chart.isDatasetVisible(at);
          chart.setDatasetVisibility(at, on);
          button.setAttribute("aria-pressed", String(on));
          chart.update();
        });
        return button;
      }),
    );
  }

  // Arrow keys move the tooltip from step to step, and what it says is spoken.
  function keys(figure, chart) {
    const spoken = figure.querySelector(".brain-spoken");
    let at = null;
    const show = (next) => {
      at = next;
      const active = next === null ? [] : chart.data.datasets.map((_, datasetIndex) => ({ datasetIndex, index: next }))
        .filter((found) => chart.isDatasetVisible(found.datasetIndex));
      chart.setActiveElements(active);
      chart.tooltip.setActiveElements(active, { x: 0, y: 0 });
      chart.update();
      spoken.textContent = next === null ? "" : [chart.data.labels[next], ...active.map((found) => {
        const line = chart.data.datasets[found.datasetIndex];
        return `${line.label} ${told(line.data[next], chart.$unit)}`;
      })].join(", ");
    };
    chart.canvas.addEventListener("keydown", (event) => {
      const last = chart.data.labels.length - 1;
      const from = at ?? last + 1;
      const next = { ArrowLeft: Math.max(0, from - 1), ArrowRight: Math.min(last, from + 1), Home: 0, End: last, Escape: null }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      show(next);
    });
    chart.canvas.addEventListener("blur", () => at !== null && show(null));
  }

  function draw(figure, chart, labels) {
    const canvas = figure.querySelector("canvas");
    const made = new Chart(canvas, {
      type: chart.kind === "bars" ? "bar" : "line",
      data: { labels, datasets: chart.lines.map((line) => dataset(chart, line)) },
      options: options(chart),
    });
    made.$unit = chart.unit;
    paint(made);
    made.update();
    legend(figure.querySelector(".brain-legend"), made);
    keys(figure, made);
    drawn.set(chart.id, made);
  }

  function redraw(made, chart, labels) {
    made.data.labels = labels;
    chart.lines.forEach((line, at) => { made.data.datasets[at].data = line.values; });
    made.update();
  }

  function refresh() {
    const source = document.getElementById("brain-chart-data");
    const box = document.querySelector(".brain-charts");
    if (!source || !box) return;
    const found = JSON.parse(source.textContent);
    box.hidden = found.is_empty;
    if (found.is_empty) return;
    for (const chart of found.charts) {
      const figure = box.querySelector(`[data-chart="${chart.id}"]`);
      figure.querySelector("[data-told]").textContent = chart.told;
      figure.querySelector("canvas").setAttribute("aria-label", `${chart.title}. ${chart.told} Arrow keys go through the steps.`);
      const made = drawn.get(chart.id);
      if (made) redraw(made, chart, found.labels);
      else draw(figure, chart, found.labels);
    }
    window.brainCharts = drawn; // for the browser's console and our tests
  }

  Chart.defaults.font.family = "Inter, sans-serif";
  Chart.defaults.font.size = 11;
  refresh();
  document.body.addEventListener("htmx:afterSettle", refresh);
  new MutationObserver(() => drawn.forEach((chart) => { paint(chart); chart.update(); }))
    .observe(document.documentElement, { attributes: true, attributeFilter: ["class"] });

  // Logged out meanwhile: the login page must not be shown as a fragment. The browser goes there itself.
  const isOurs = (event) => (event.detail.requestConfig?.elt ?? event.detail.elt)?.id === "brain-live";
  document.body.addEventListener("htmx:beforeSwap", (event) => {
    if (!isOurs(event) || !event.detail.xhr.responseURL) return;
    const asked = new URL(event.detail.pathInfo.finalRequestPath, location.href);
    if (new URL(event.detail.xhr.responseURL).pathname === asked.pathname) return;
    event.detail.shouldSwap = false;
    location.reload();
  });
  // The figures are old: say so until new ones take their place.
  for (const name of ["htmx:sendError", "htmx:responseError", "htmx:timeout"]) {
    document.body.addEventListener(name, (event) => {
      if (isOurs(event)) document.querySelectorAll(".brain-updated").forEach((note) => note.classList.add("brain-stale"));
    });
  }
})();
