// What is shown of an operator on demand: its facts, settings to try, and how its values spread.
const rows = JSON.parse(document.getElementById("rows").textContent);
const spreads = JSON.parse(document.getElementById("spreads").textContent);
const SHAPES = new Set(["svg", "rect", "text", "title"]);
const WIDTH = 420, HEIGHT = 130, FAR = 4;  // a weight is far out beyond so many times the median

function make(tag, attributes, ...children) {
  const e = SHAPES.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, value);
  e.append(...children);
  return e;
}

function format(v) { return Math.abs(v) >= 1e4 || (v !== 0 && Math.abs(v) < 1e-3) ? v.toExponential(2) : String(+v.toPrecision(4)); }

function decibels(v) { return v === null ? null : v === "inf" ? "exact" : v === "-inf" ? "no signal" : `${v.toFixed(1)} dB`; }

function plot() { return make("svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT + 16}`, role: "img"}); }

function bar(x, width, tall, far) {
  return make("rect", {class: far ? "clip" : "hist", x, y: HEIGHT - tall, width: Math.max(width - .5, .5), height: tall});
}

function figure(svg, caption) { return make("figure", {}, svg, make("figcaption", {}, caption)); }

function label(x, text, anchor = "start") { return make("text", {class: "axis", x, y: HEIGHT + 13, "text-anchor": anchor}, text); }

function histogram(spread, r) {
  const low = Math.min(spread.low, r.low ?? spread.low), high = Math.max(spread.high, r.high ?? spread.high);
  const x = v => 4 + (WIDTH - 8) * (v - low) / (high - low || 1), step = (spread.high - spread.low) / spread.counts.length;
  const most = Math.log1p(Math.max(...spread.counts)), svg = plot();
  let clipped = 0, total = 0;
  if (r.low !== null) svg.append(make("rect", {class: "span", x: x(r.low), y: 0, width: x(r.high) - x(r.low), height: HEIGHT}));
  spread.counts.forEach((count, i) => {
    const from = spread.low + i * step, middle = from + step / 2;
    const outside = r.low !== null && (middle < r.low || middle > r.high);
    total += count;
    if (outside) clipped += count;
    svg.append(bar(x(from), x(from + step) - x(from), most ? (HEIGHT - 6) * Math.log1p(count) / most : 0, outside));
  });
  svg.append(label(4, format(low)), label(WIDTH - 4, format(high), "end"));
  const beyond = clipped ? `${(100 * clipped / total).toPrecision(2)} %` : "nothing";
  return figure(svg, `output in calibration (counts on a logarithmic scale); shaded: the range of the integers; ${beyond} beyond it`);
}

function channels(weights) {
  const most = Math.max(...weights), median = [...weights].sort((a, b) => a - b)[weights.length >> 1];
  const each = (WIDTH - 8) / weights.length, svg = plot(), far = weights.map(v => v > FAR * median);
  weights.forEach((v, i) => {
    const rect = bar(4 + i * each, each, most ? (HEIGHT - 6) * v / most : 0, far[i]);
    rect.append(make("title", {}, format(v)));
    svg.append(rect);
  });
  svg.append(label(4, `0 … ${format(most)}`));
  const count = far.filter(Boolean).length;
  return figure(svg, `largest weight of each output channel; ${count || "none"} beyond ${FAR} times the median`);
}

function detail(r, spread) {
  const facts = make("dl", {class: "facts"});
  const add = (name, ...value) => { if (value[0] !== null && value[0] !== "") facts.append(make("dt", {}, name), make("dd", {}, ...value)); };
  add("operator", r.operator);
  add("name", r.name);
  add("as", r.precision + (r.reason ? `: ${r.reason}` : ""));
  if (r.weight_bits !== null || r.activation_bits !== null) add("bits", `${r.weight_bits ?? "-"} of weights, ${r.activation_bits ?? "-"} of activations`);
  add("SQNR", decibels(r.sqnr));
  add("SQNR by its own rounding", decibels(r.local_sqnr));
  add("share of the output's noise", r.noise_share === null ? null : `${(100 * r.noise_share).toFixed(1)} %`);
  add("multiply-adds", r.multiply_adds.toLocaleString("en"));
  add("parameters", r.parameters.toLocaleString("en"));
  for (const line of r.advice) {
    const copy = make("button", {type: "button", class: "copy"}, "copy");
    copy.addEventListener("click", () => navigator.clipboard?.writeText(line).then(() => { copy.textContent = "copied"; }, () => {}));
    add("to try", make("code", {}, line), copy);
  }
  const plots = make("div", {class: "plots"});
  if (spread?.counts.length) plots.append(histogram(spread, r));
  if (spread?.weights.length) plots.append(channels(spread.weights));
  return make("tr", {class: "detail"}, make("td", {colspan: table.tHead.rows[0].cells.length}, facts, plots));
}

lines.forEach((line, i) => {
  const button = line.querySelector(".open");
  button.addEventListener("click", () => {
    const opened = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!opened));
    if (opened) { line.detail.remove(); line.detail = null; }
    else { line.detail = detail(rows[i], spreads[i]); line.after(line.detail); }
  });
});

const ordered = document.getElementById("order"), byShare = heads.find(b => b.dataset.key === "noise_share");
ordered.addEventListener("change", () => sortBy(ordered.value === "share" ? byShare : null, true));
for (const b of heads) b.addEventListener("click", () => { ordered.value = "graph"; });
