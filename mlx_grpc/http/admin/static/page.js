// Draws what the server sends once a second. State lives in the server; this page only remembers the curves.
import { Curve, SPAN_SECONDS } from "./curves.js";
import { $, announce, element, setText } from "./dom.js";
import { bytes, count, joined, rate, seconds, span } from "./format.js";
import { drawErrors, drawModels, drawRunning } from "./tables.js";

const MOODS = { SERVING: "good", LOADING: "warn", DRAINING: "warn", UNLOADED: "warn", FAILED: "bad" };

const tiles = Object.fromEntries(
  [...document.querySelectorAll("[data-tile]")].map((tile) => {
    const part = (name) => tile.querySelector(`[data-${name}]`);
    return [tile.dataset.tile, { value: part("value"), unit: part("unit"), note: part("note"), box: part("curve") }];
  }),
);
const curves = {
  tokens: new Curve(tiles.tokens.box, "Tokens per second", { least: 10, tell: rate }),
  rows: new Curve(tiles.rows.box, "Rows of the batch in use", { least: 4, tell: count }),
  queue: new Curve(tiles.queue.box, "Requests in the queue", { least: 4, tell: count }),
  first: new Curve(tiles.first.box, "Median time to first token", { least: 0.01, tell: (value) => joined(seconds(value)) }),
  memory: new Curve(tiles.memory.box, "Reserved KV cache", { least: 1048576, binary: true, tell: (value) => joined(bytes(value)) }),
};
let points = [];
let told = "";


function setTile(name, [value, unit], note) {
  setText(tiles[name].value, value);
  setText(tiles[name].unit, unit);
  setText(tiles[name].note, note);
}

function drawTiles(now) {
  const { queue_by_priority: waiting, queue_seconds: queued, first_token_seconds: first } = now;
  const lag = `event loop ${joined(seconds(now.loop_lag_seconds))} late`;
  setTile("tokens", [rate(now.tokens_per_second), "tokens/s"], `${count(now.generated_tokens)} since the start, ${lag}`);
  setTile("rows", [count(now.active_rows), `of ${count(now.row_limit)} rows`], "generating together");
  const classes = Object.entries(waiting).filter(([, number]) => number).map(([name, number]) => `${count(number)} ${name}`);
  setTile("queue", [count(now.queue_depth), `of ${count(now.queue_limit)} places`], classes.join(", ") || "nobody waits");
  setTile("first", seconds(first.p50), first.p50 == null ? "no call has ended yet" :
    `9 of 10 within ${joined(seconds(first.p90))}, queued ${joined(seconds(queued.p50))}`);
  const budget = now.kv_budget_bytes ? `of ${joined(bytes(now.kv_budget_bytes))}` : "";
  const [reserved, unit] = bytes(now.kv_reserved_bytes);
  setTile("memory", [reserved, `${unit} ${budget}`], `reserved; server ${joined(bytes(now.memory_bytes))}`);
  for (const [name, curve] of Object.entries(curves)) {
    curve.draw(points.map((point) => [point.time, point[name]]), now.unix_seconds);
  }
}

function drawFacts(now) {
  const done = Object.values(now.completed).reduce((sum, number) => sum + number, 0);
  const facts = {
    Accepted: count(now.accepted), Completed: count(done), "Left by the client": count(now.abandoned),
    "Engine restarts": count(now.restarts), "Requests resumed": count(now.resumed), Stalls: count(now.stalls),
  };
  $("facts").replaceChildren(...Object.entries(facts).map(([name, value]) =>
    element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: value }))));
}

function drawState(now) {
  const state = $("state");
  state.className = `pill ${MOODS[now.state] ?? ""}`;
  setText(state, now.state);
  setText($("about"), `${now.default_model}, up ${span(now.uptime_seconds)}, version ${now.version}, process ${now.pid}`);
  document.title = `${now.state === "SERVING" ? "" : `${now.state} – `}mlx-grpc`;
  $("notice").hidden = !now.reason;
  setText($("notice"), now.reason);
  // Only changes are read aloud; figures that move every second would never let a listener go.
  const news = `The server is ${now.state}. ${now.reason}`;
  if (news !== told) announce(news);
  told = news;
}

function draw(now) {
  document.body.classList.remove("lost");
  drawState(now);
  drawTiles(now);
  drawRunning(now);
  drawModels(now);
  drawErrors(now);
  drawFacts(now);
}

function lost() {
  document.body.classList.add("lost");
  $("state").className = "pill bad";
  setText($("state"), "no connection");
  $("notice").hidden = false;
  setText($("notice"), "The server does not answer. This page tries again by itself.");
  if (told !== "lost") announce("The connection to the server is lost.");
  told = "lost";
}

function connect() {
  const source = new EventSource("/admin/events");
  source.addEventListener("history", (event) => {
    const history = JSON.parse(event.data);
    points = history.points;
    if (history.snapshot) draw(history.snapshot);
  });
  source.addEventListener("snapshot", (event) => {
    const now = JSON.parse(event.data);
    points.push({
      time: now.unix_seconds, tokens: now.tokens_per_second, rows: now.active_rows, queue: now.queue_depth,
      first: now.first_token_seconds.p50, memory: now.kv_reserved_bytes,
    });
    points = points.filter((point) => point.time > now.unix_seconds - SPAN_SECONDS - 2);
    draw(now);
  });
  source.addEventListener("error", () => {
    lost();
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 2000); // an answer that was no stream
  });
}

connect();
