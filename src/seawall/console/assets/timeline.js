// Samples of all workers, added up by second. Pure: no page, no clock.
const KEPT = 300;
const WINDOW = 10; // seconds over which times to the first text are taken together
const CARRIED = 6; // seconds for which a late worker counts as it was last seen
const GROWTH = 1.1;
const BUCKETS = 256; // the last is of 36,000,000 s
const COUNTS = ["begun", "completed", "failed", "refused"];
const LEVELS = ["in_flight", "limit", "queued", "cpu", "memory"];

export class Timeline {
  constructor() {
    this.workers = new Map(); // name -> Map(second -> sample)
    this.newest = 0;
  }

  #rows = new Map(); // what is shown of a second, until a sample changes it
  #known = ""; // the workers of these rows

  // `samples`: of each worker, oldest first, as the server sends them.
  add(samples) {
    for (const [worker, fresh] of Object.entries(samples)) {
      let known = this.workers.get(worker);
      if (!known) this.workers.set(worker, known = new Map());
      for (const sample of fresh) {
        const buckets = Object.entries(sample.first_text).map(([number, turns]) => [Number(number), turns]);
        known.set(sample.at, { ...sample, buckets });
        for (let after = 0; after < WINDOW; after += 1) this.#rows.delete(sample.at + after);
        this.newest = Math.max(this.newest, sample.at);
      }
    }
    for (const [worker, known] of this.workers) {
      for (const at of known.keys()) if (at <= this.newest - KEPT) known.delete(at);
      if (!known.size) this.workers.delete(worker);
    }
  }

  names() {
    return [...this.workers.keys()].sort((a, b) => a - b);
  }

  // The sample of a worker that describes a second: its own, or its last within a few seconds.
  at(worker, second) {
    const known = this.workers.get(worker);
    for (let back = 0; known && back < CARRIED; back += 1) {
      const found = known.get(second - back);
      if (found) return found;
    }
    return null;
  }

  // Columns for charts: seconds, sums, percentiles in milliseconds, and values by worker.
  columns() {
    const names = this.names();
    const known = names.join();
    if (known !== this.#known) this.#rows.clear();
    this.#known = known;
    const first = Math.max(this.newest - KEPT + 1, this.oldest());
    const columns = {
      at: [], p50: [], p95: [], p99: [],
      cpuBy: names.map(() => []), lagBy: names.map(() => []), memoryBy: names.map(() => []),
    };
    for (const name of [...COUNTS, ...LEVELS]) columns[name] = [];
    for (let second = first; second <= this.newest; second += 1) {
      let row = this.#rows.get(second);
      if (!row) this.#rows.set(second, row = this.#row(second, names));
      columns.at.push(second);
      for (const name of [...COUNTS, ...LEVELS]) columns[name].push(row.sums[name]);
      names.forEach((_, index) => {
        const shown = row.shown[index];
        columns.cpuBy[index].push(shown ? shown.cpu * 100 : null);
        columns.lagBy[index].push(shown ? shown.lag * 1000 : null);
        columns.memoryBy[index].push(shown ? shown.memory / 1048576 : null);
      });
      columns.p50.push(row.percentiles[0]);
      columns.p95.push(row.percentiles[1]);
      columns.p99.push(row.percentiles[2]);
    }
    for (const second of this.#rows.keys()) if (second < first) this.#rows.delete(second);
    return columns;
  }

  // What is shown of one second; of the seconds before it, only as far as they are kept.
  #row(second, names) {
    const sums = Object.fromEntries([...COUNTS, ...LEVELS].map((name) => [name, 0]));
    const shown = names.map((name) => this.at(name, second));
    const window = [];
    names.forEach((name, index) => {
      const known = this.workers.get(name);
      const own = known.get(second);
      if (shown[index]) for (const level of LEVELS) sums[level] += shown[index][level];
      if (own) for (const each of COUNTS) sums[each] += own[each];
      for (let back = 0; back < WINDOW; back += 1) {
        const sample = known.get(second - back);
        if (sample) window.push(sample.buckets);
      }
    });
    return { sums, shown, percentiles: percentiles(window, [0.5, 0.95, 0.99]) };
  }

  oldest() {
    let oldest = this.newest;
    for (const known of this.workers.values()) {
      for (const at of known.keys()) oldest = Math.min(oldest, at);
    }
    return oldest;
  }

  // Upstreams now: levels added up over the workers, calls over the last `seconds`.
  upstreams(seconds = 30) {
    return this.#totals("upstreams", seconds, (total, row, now) => {
      const [name, kind, state, inFlight, limit, calls, failed] = row;
      Object.assign(total, { name, kind });
      if (now) {
        total.in_flight = (total.in_flight || 0) + inFlight;
        total.limit = (total.limit || 0) + limit;
        total.states = { ...total.states, [state]: ((total.states || {})[state] || 0) + 1 };
      }
      total.calls = (total.calls || 0) + calls;
      total.failed = (total.failed || 0) + failed;
    }, (row) => `${row[1]} ${row[0]}`);
  }

  quotas(seconds = 30) {
    return this.#totals("quotas", seconds, (total, row, now) => {
      const [name, inFlight, waiting, refused, throttled] = row;
      total.name = name;
      if (now) {
        total.in_flight = (total.in_flight || 0) + inFlight;
        total.waiting = (total.waiting || 0) + waiting;
      }
      total.refused = (total.refused || 0) + refused;
      total.throttled = (total.throttled || 0) + throttled;
    }, (row) => row[0]);
  }

  #totals(field, seconds, add, key) {
    const totals = new Map();
    for (const known of this.workers.values()) {
      const latest = Math.max(...known.keys());
      for (let at = this.newest - seconds + 1; at <= this.newest; at += 1) {
        for (const row of known.get(at)?.[field] || []) {
          if (!totals.has(key(row))) totals.set(key(row), {});
          add(totals.get(key(row)), row, at === latest);
        }
      }
    }
    return [...totals.values()];
  }
}

// Quantiles of histograms with growing buckets, in milliseconds; null without any value.
// `histograms`: each pairs of a bucket's number and how many are in it.
export function percentiles(histograms, quantiles) {
  const merged = new Uint32Array(BUCKETS);
  let all = 0;
  for (const each of histograms) {
    for (const [number, turns] of each) {
      merged[Math.min(number, BUCKETS - 1)] += turns;
      all += turns;
    }
  }
  if (!all) return quantiles.map(() => null);
  return quantiles.map((quantile) => {
    let seen = 0;
    let number = -1;
    while (seen < quantile * all) seen += merged[number += 1];
    return GROWTH ** (number + 0.5);
  });
}
