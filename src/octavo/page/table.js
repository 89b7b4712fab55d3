// The page's table: sorted by the values of a column (data-v of its cells), filtered by words.
const table = document.querySelector("table.sortable"), body = table.tBodies[0];
const lines = [...body.rows], heads = [...table.tHead.querySelectorAll("button")];
const filter = document.getElementById("filter"), kind = document.getElementById("kind");
const collator = new Intl.Collator("en", {numeric: true});
let sortedBy = null, down = true;

function valueOf(line, head) {
  const cell = line.cells[head.parentNode.cellIndex], value = cell.dataset.v ?? cell.textContent.trim();
  if (!head.parentNode.classList.contains("n")) return value;
  return value === "inf" ? Infinity : value === "" || value === "-inf" ? -Infinity : +value;
}

function order(x, y) {
  return x === y ? 0 : typeof x === "number" ? (x < y ? -1 : 1) : collator.compare(x, y);
}

function inOrder() {
  if (!sortedBy) return lines;
  const found = lines.map((line, i) => [line, valueOf(line, sortedBy), i]);
  found.sort((a, b) => (down ? -1 : 1) * order(a[1], b[1]) || a[2] - b[2]);
  return found.map(entry => entry[0]);
}

function show() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  const parts = document.createDocumentFragment();
  let count = 0;
  for (const line of inOrder()) {
    const text = `${line.textContent} ${line.dataset.words ?? ""}`.toLowerCase();
    const fits = words.every(w => text.includes(w)) && !(kind?.value && line.dataset.kind !== kind.value);
    line.hidden = !fits;
    count += fits;
    parts.append(line);
    if (line.detail) { line.detail.hidden = !fits; parts.append(line.detail); }
  }
  body.append(parts);
  table.classList.toggle("sorted", sortedBy !== null || words.length > 0 || Boolean(kind?.value));
  document.getElementById("count").textContent = `${count} of ${lines.length} operators`;
  document.getElementById("none").hidden = count > 0;
}

function sortBy(head, descending) {
  sortedBy = head; down = descending;
  for (const b of heads) b.parentNode.setAttribute("aria-sort", b !== head ? "none" : down ? "descending" : "ascending");
  show();
}

for (const b of heads) b.addEventListener("click", () => sortBy(b, !(b === sortedBy && down)));
for (const e of [filter, kind]) e?.addEventListener("input", show);
show();
