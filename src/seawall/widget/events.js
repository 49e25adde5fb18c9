// Server-sent events of a turn, and what they add up to. No network and no document here.

/** Splits a stream of server-sent events into events; an incomplete one at its end is dropped. */
export class EventReader {
  #rest = "";

  /** The events that this piece of the stream completes, as [position, event]. */
  read(piece) {
    const blocks = (this.#rest + piece).split("\n\n");
    this.#rest = blocks.pop();
    return blocks.map(parse).filter(Boolean);
  }
}

function parse(block) {
  let position = 0;
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("id:")) position = Number(line.slice(3));
    else if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
  }
  if (!data.length) return null; // a comment
  try {
    return [position, JSON.parse(data.join("\n"))];
  } catch {
    return null;
  }
}

const ENDS = { "turn.completed": "completed", "turn.failed": "failed", "turn.paused": "paused" };

/**
 * What a turn has shown so far.
 *
 * `position` is that of the last event, for Last-Event-ID. Each event is taken once, however often
 * it is sent; what a new attempt makes void is removed.
 */
export class TurnState {
  constructor() {
    this.reset();
  }

  reset() {
    this.turn = "";
    this.position = 0;
    this.#log = [];
    this.#restart();
  }

  /** Whether the stream need not be continued now. */
  get ended() {
    return this.status !== "running";
  }

  /** All text of the answer. */
  get text() {
    return this.parts.filter((part) => part.kind === "text").map((part) => part.text).join("\n\n");
  }

  /** Calls that wait for a person. */
  get waits() {
    const waiting = this.status === "paused" ? this.paused : [];
    return this.parts.filter(
      (part) => part.kind === "wait" && !part.done && waiting.includes(part.id),
    );
  }

  take(position, event) {
    if (event.type === "turn.queued") {
      this.queued = event;
      return;
    }
    const reasoning = event.type === "reasoning.delta"; // has no position of its own
    if (!reasoning && position <= this.position) return;
    this.queued = null;
    if (event.type === "turn.started" && this.#log.length) this.#void(0);
    if (event.type === "turn.resumed") this.#void(event.after);
    this.position = position;
    if (!reasoning) this.#log.push([position, event]);
    this.#add(event);
  }

  #log;

  #restart() {
    this.status = "running";
    this.session = this.session ?? "";
    this.agent = "";
    this.queued = null;
    this.problem = null;
    this.finish = "";
    this.paused = [];
    this.parts = [];
  }

  /** Remove what came after a position; a text may lie across it. */
  #void(after) {
    const kept = [];
    for (const [position, event] of this.#log) {
      if (position <= after) {
        kept.push([position, event]);
      } else if (event.type === "text.delta") {
        const characters = Array.from(event.text); // positions count characters, not UTF-16 units
        const rest = characters.length - (position - after);
        if (rest > 0) kept.push([after, { ...event, text: characters.slice(0, rest).join("") }]);
      }
    }
    this.#log = kept;
    this.#restart();
    for (const [, event] of kept) this.#add(event);
    this.status = "running";
  }

  #add(event) {
    if (event.turn) this.turn = event.turn;
    if (event.session) this.session = event.session;
    const last = this.parts.at(-1);
    switch (event.type) {
      case "agent.selected":
        this.agent = event.agent;
        break;
      case "text.delta":
      case "reasoning.delta": {
        const kind = event.type.slice(0, -".delta".length);
        if (last?.kind === kind) last.text += event.text;
        else this.parts.push({ kind, text: event.text });
        break;
      }
      case "tool.called":
        this.parts.push({ kind: "tool", id: event.id, name: event.name, arguments: event.arguments });
        break;
      case "tool.returned":
        for (const part of this.parts) {
          if (part.id !== event.id || part.done) continue;
          Object.assign(part, { done: true, content: event.content, failed: event.failed });
        }
        break;
      case "approval.requested": {
        // A tool may ask one question after another: each has a part of its own.
        const same = this.parts.filter((part) => part.kind === "wait" && part.id === event.id);
        const number = event.question?.number ?? 0;
        for (const part of same) part.done = part.number !== number;
        if (same.some((part) => part.number === number)) break;
        const waits = event.kind ?? "approval";
        this.parts.push({ ...event, kind: "wait", waits, number, done: false });
        break;
      }
      case "turn.paused":
        this.paused = event.waits;
        break;
      case "turn.failed":
        this.problem = event.problem;
        break;
      case "turn.completed":
        this.finish = event.finish_reason ?? "stop";
        break;
      case "turn.resumed":
        this.paused = [];
        break;
    }
    this.status = ENDS[event.type] ?? "running";
  }
}
