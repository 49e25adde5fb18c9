// Numbers, times and money as text.
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const one = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

export const count = (value) => (value == null ? "-" : whole.format(value));

// Milliseconds, as the unit that reads best.
export function duration(milliseconds) {
  if (milliseconds == null || Number.isNaN(milliseconds)) return "-";
  if (milliseconds < 1) return `${milliseconds.toFixed(2)} ms`;
  if (milliseconds < 1000) return `${one.format(milliseconds)} ms`;
  if (milliseconds < 59995) return `${(milliseconds / 1000).toFixed(2)} s`;
  const seconds = Math.round(milliseconds / 1000);
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

export const share = (value) => (value == null ? "-" : `${one.format(value * 100)} %`);
export const memory = (bytes) => (bytes == null ? "-" : `${whole.format(bytes / 1048576)} MiB`);

export function money(amount, currency) {
  if (!currency) return "-";
  return `${amount < 0.01 ? amount.toFixed(6) : amount.toFixed(4)} ${currency}`;
}

export function time(seconds) {
  if (!seconds) return "-";
  const at = new Date(seconds * 1000);
  const clock = at.toLocaleTimeString("en-GB");
  const today = new Date().toDateString() === at.toDateString();
  return today ? clock : `${at.toLocaleDateString("sv")} ${clock}`; // 2026-11-30, where the user is
}

// JSON text indented, or the text as it is.
export function pretty(text) {
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
}
