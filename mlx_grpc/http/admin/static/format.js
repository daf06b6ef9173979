// Numbers as people read them. Every function takes null for "not known".

const UNKNOWN = "–";
const whole = new Intl.NumberFormat("en");

export const count = (value) => (value == null ? UNKNOWN : whole.format(Math.round(value)));

export function rate(value) {
  if (value == null) return UNKNOWN;
  return value >= 100 || Number.isInteger(value) ? count(value) : value.toFixed(1);
}

// [number, unit], so that the unit can be set smaller.
export function bytes(value) {
  if (value == null) return [UNKNOWN, ""];
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let step = 0;
  while (value >= 1024 && step < units.length - 1) {
    value /= 1024;
    step += 1;
  }
  return [value >= 100 || Number.isInteger(value) ? count(value) : value.toFixed(1), units[step]];
}

export function seconds(value) {
  if (value == null) return [UNKNOWN, ""];
  if (value < 0.9995) return [count(value * 1000), "ms"];
  if (value < 100) return [value.toFixed(value < 10 ? 2 : 1), "s"];
  return [count(value), "s"];
}

export function span(value) {
  const all = Math.max(0, Math.floor(value));
  const [days, hours, minutes] = [Math.floor(all / 86400), Math.floor(all / 3600) % 24, Math.floor(all / 60) % 60];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${all % 60} s` : `${all} s`;
}

export const joined = (pair) => pair.filter(Boolean).join(" ");
export const clock = (unixSeconds) => new Date(unixSeconds * 1000).toLocaleTimeString("en-GB");
