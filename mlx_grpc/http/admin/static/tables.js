// The page's tables: running requests with their buttons, models, refusals.
import { $, announce, drawRows, element, pill, rowOf, setText } from "./dom.js";
import { bytes, clock, count, joined, span } from "./format.js";

const WORDS = { waiting: "waiting", prefill: "reading", decode: "generating", leaving: "ending" };
const MODEL_MOODS = { ready: "good", failed: "bad" };
const cancelling = new Set();

function makeRunning(item) {
  const row = rowOf("", "", "number", "number", "", "act");
  const id = item.generation_id.slice(0, 12);
  row.cells[0].append(element("div", {}, element("code", { textContent: id, title: item.generation_id }), element("small")));
  row.cells[4].append(element("div", { className: "progress" }, element("progress"), element("span", { className: "number" })));
  row.cells[4].querySelector("progress").setAttribute("aria-label", `Tokens of ${id}`);
  const button = element("button", { type: "button", textContent: "Cancel" });
  button.setAttribute("aria-label", `Cancel request ${id}`);
  button.addEventListener("click", () => cancel(item.generation_id, button));
  row.cells[5].append(button);
  return row;
}

function fillRunning(row, item) {
  setText(row.querySelector("small"), item.request_id.slice(0, 40) || item.model);
  const word = WORDS[item.state] ?? item.state;
  pill(row.cells[1], item.priority === "normal" ? word : `${word}, ${item.priority}`, item.state === "decode" ? "good" : "");
  setText(row.cells[2], span(item.age_seconds));
  setText(row.cells[3], count(item.prompt_tokens));
  const bar = row.querySelector("progress");
  bar.max = item.max_tokens;
  bar.value = item.generated_tokens;
  setText(bar.nextElementSibling, `${count(item.generated_tokens)} of ${count(item.max_tokens)}`);
}

async function cancel(id, button) {
  if (cancelling.has(id)) return;
  cancelling.add(id);
  button.textContent = "Cancelling";
  try {
    const answer = await fetch(`/admin/requests/${encodeURIComponent(id)}/cancel`, { method: "POST" });
    if (!answer.ok && answer.status !== 404) throw new Error((await answer.json()).error.message);
    announce(`Request ${id.slice(0, 12)} was cancelled.`);
    $("running-title").focus({ preventScroll: true });
  } catch (error) {
    button.textContent = "Cancel";
    announce(`Request ${id.slice(0, 12)} could not be cancelled: ${error.message}`);
  } finally {
    cancelling.delete(id);
  }
}

export function drawRunning(now) {
  drawRows($("running"), now.running, (item) => item.generation_id, makeRunning, fillRunning);
  $("running-box").hidden = !now.running.length;
  $("running-empty").hidden = now.running.length > 0;
  setText($("running-count"), count(now.running_count));
  offerAll("running", now.running.length);
}

// Long tables show their first rows until somebody wants all. How many those are is for the style sheet to say.
function offerAll(name, length) {
  const [table, button] = [$(name), $(`${name}-more`)];
  const short = table.classList.contains("short");
  const visible = [...table.tBodies[0].rows].filter((row) => row.offsetParent !== null).length;
  button.hidden = short ? visible === length : length <= 6;
  setText(button, short ? `Show all ${count(length)} ${name === "running" ? "requests" : "refusals"}` : "Show fewer");
  button.setAttribute("aria-expanded", String(!short));
}

for (const name of ["running", "errors"]) {
  $(`${name}-more`).addEventListener("click", () => {
    $(name).classList.toggle("short");
    offerAll(name, $(name).tBodies[0].rows.length);
  });
}

const BATCHING = {
  PADDED: "Prompts of different lengths are processed together.",
  ALIGNED: "Prompts are processed one at a time; requests decode together.",
  ALONE: "One request at a time.",
};

function makeModel(model) {
  const row = rowOf("", "", "number", "number", "number", "number", "number");
  row.cells[0].append(element("div", {}, element("span", { textContent: model.id }), element("small")));
  return row;
}

function fillModel(row, model) {
  row.querySelector("small").title = BATCHING[model.batching] ?? "";
  setText(row.querySelector("small"), [model.default ? "default" : "", model.device, model.batching.toLowerCase()].filter(Boolean).join(", "));
  const stalled = model.stalled_seconds > 5 ? `, silent for ${span(model.stalled_seconds)}` : "";
  pill(row.cells[1], model.state + stalled, stalled ? "bad" : MODEL_MOODS[model.state] ?? "warn");
  row.cells[1].title = model.error;
  setText(row.cells[2], model.weights_bytes ? joined(bytes(model.weights_bytes)) : "–");
  setText(row.cells[3], joined(bytes(model.engine_memory_bytes)));
  setText(row.cells[4], `${count(model.active_rows)} of ${count(model.row_limit)}`);
  setText(row.cells[5], `${count(model.queue_depth)} of ${count(model.queue_limit)}`);
  setText(row.cells[6], count(model.restarts));
}

export function drawModels(now) {
  drawRows($("models"), now.models, (model) => model.id, makeModel, fillModel);
}

function makeError(error) {
  const row = rowOf("", "", "", "text");
  const time = element("time", { textContent: clock(error.unix_seconds) });
  time.dateTime = new Date(error.unix_seconds * 1000).toISOString();
  row.cells[0].append(time);
  row.cells[1].append(element("code", { textContent: error.reason }));
  row.cells[2].textContent = error.model;
  row.cells[3].textContent = error.message;
  return row;
}

export function drawErrors(now) {
  const keyOf = (error) => `${error.unix_seconds} ${error.reason} ${error.generation_id}`;
  drawRows($("errors"), now.recent_errors, keyOf, makeError, () => {});
  $("errors-box").hidden = !now.recent_errors.length;
  $("errors-empty").hidden = now.recent_errors.length > 0;
  offerAll("errors", now.recent_errors.length);
  const sums = new Map();
  for (const [reason, number] of [...Object.entries(now.refused), ...Object.entries(now.failed)]) {
    sums.set(reason, (sums.get(reason) ?? 0) + number);
  }
  const chips = [...sums].sort((a, b) => b[1] - a[1]).map(([reason, number]) =>
    element("li", {}, element("code", { textContent: reason }), element("b", { textContent: count(number) })));
  $("reasons").replaceChildren(...chips);
}
