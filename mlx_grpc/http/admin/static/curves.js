// A live curve: SVG for the eye, a sentence for screen readers.

const SVG = "http://www.w3.org/2000/svg";
export const SPAN_SECONDS = 180;
const LEAST_SPAN_SECONDS = 30;
const GAP_SECONDS = 4;
const [WIDTH, HEIGHT, TOP] = [360, 100, 18];

const make = (name, attributes) => {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
};

// The next of 1, 2, 4, 5, 10, 20 ... that is at least the value; in powers of two for bytes.
export function niceCeiling(value, least, binary = false) {
  const wanted = Math.max(value, least);
  if (binary) return 2 ** Math.ceil(Math.log2(wanted));
  const power = 10 ** Math.floor(Math.log10(wanted));
  return power * [1, 2, 4, 5, 10].find((step) => step * power >= wanted * 0.999999);
}

export class Curve {
  // `least` is the smallest top of the scale; `tell` makes text of a value.
  constructor(box, name, { least, tell, binary = false }) {
    Object.assign(this, { name, least, tell, binary });
    this.svg = make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    this.area = make("path", { class: "area" });
    this.line = make("path", { class: "line" });
    this.svg.append(make("line", { class: "rule", x1: 0, x2: WIDTH, y1: TOP, y2: TOP }), this.area, this.line);
    this.most = Object.assign(document.createElement("span"), { className: "most" });
    this.since = Object.assign(document.createElement("span"), { className: "since" });
    for (const label of [this.most, this.since]) label.setAttribute("aria-hidden", "true");
    box.replaceChildren(this.svg, this.most, this.since);
  }

  draw(points, now) {
    const known = points.filter(([time, value]) => value != null && time > now - SPAN_SECONDS - 2);
    const values = known.map(([, value]) => value);
    const top = niceCeiling(Math.max(0, ...values), this.least, this.binary);
    const age = points.length ? now - points[0][0] : 0;
    const span = Math.min(SPAN_SECONDS, Math.max(LEAST_SPAN_SECONDS, age));
    const x = (time) => (WIDTH * (1 - (now - time) / span)).toFixed(1);
    const y = (value) => (HEIGHT - 3 - (value / top) * (HEIGHT - 3 - TOP)).toFixed(1);
    let [line, area, before] = ["", "", null];
    for (const [time, value] of known) {
      if (before !== null && time - before < GAP_SECONDS) {
        line += `L${x(time)} ${y(value)}`;
        area += `L${x(time)} ${y(value)}`;
      } else {
        if (before !== null) area += `L${x(before)} ${HEIGHT}Z`;
        line += `M${x(time)} ${y(value)}`;
        area += `M${x(time)} ${HEIGHT}L${x(time)} ${y(value)}`;
      }
      before = time;
    }
    if (before !== null) area += `L${x(before)} ${HEIGHT}Z`;
    this.line.setAttribute("d", line);
    this.area.setAttribute("d", area);
    this.most.textContent = this.tell(top);
    const reach = span < 60 ? `${Math.round(span)} s` : `${Math.floor(span / 60)} min`;
    this.since.textContent = `last ${reach}`;
    const summary = values.length
      ? `now ${this.tell(values.at(-1))}, lowest ${this.tell(Math.min(...values))}, highest ${this.tell(Math.max(...values))}`
      : "nothing measured yet";
    this.svg.setAttribute("aria-label", `${this.name} over the last ${reach}: ${summary}`);
  }
}
