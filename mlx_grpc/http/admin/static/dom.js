// Small helpers for the document.

const SHORT = { Age: "age", Prompt: "prompt", Weights: "weights", "Engine memory": "engine", Rows: "rows", Waiting: "waiting", Restarts: "restarts" };

export const $ = (id) => document.getElementById(id);

export const setText = (node, text) => {
  if (node.textContent !== text) node.textContent = text;
};

// Read aloud by screen readers.
export function announce(text) {
  $("announcer").textContent = text;
}

// Rows are kept by key and changed in place, so that a focused button stays focused.
export function drawRows(table, items, keyOf, makeRow, fillRow) {
  const body = table.tBodies[0];
  const rows = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  const names = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
  items.forEach((item, index) => {
    const key = keyOf(item);
    let row = rows.get(key);
    rows.delete(key);
    if (!row) {
      row = makeRow(item);
      row.dataset.key = key;
      [...row.cells].forEach((cell, column) => SHORT[names[column]] && (cell.dataset.short = SHORT[names[column]]));
    }
    fillRow(row, item);
    if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] ?? null);
  });
  for (const row of rows.values()) row.remove();
}

export function rowOf(...classes) {
  const row = document.createElement("tr");
  for (const name of classes) Object.assign(row.insertCell(), { className: name });
  return row;
}

export const element = (name, attributes = {}, ...children) => {
  const node = Object.assign(document.createElement(name), attributes);
  node.append(...children);
  return node;
};

export function pill(cell, text, mood) {
  const own = cell.firstElementChild ?? cell.appendChild(element("span"));
  own.className = `pill ${mood ?? ""}`;
  setText(own, text);
}
