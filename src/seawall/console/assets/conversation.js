// A conversation of the person who is logged in with the server's agents: its turns as they happen.
import { me, address } from "./api.js";
import { Client, newKey, sleep } from "./widget/client.js";
import { TurnState } from "./widget/events.js";

const POLL = 2000;
const MAX_EVENTS = 2000; // kept of a turn, newest

// A turn's state that also keeps the events as they came, as { at, position, event }.
class RecordedState extends TurnState {
  events = [];
  left = 0;
  #began = performance.now();

  take(position, event) {
    this.events.push({ at: performance.now() - this.#began, position, event });
    if (this.events.length > MAX_EVENTS) this.left += this.events.splice(0, MAX_EVENTS / 4).length;
    super.take(position, event);
  }
}

// `changed` is called whenever something is to be shown anew.
export class Conversation {
  session = "";
  agent = "";
  turns = [];
  changed = () => {};
  #abort = new AbortController();

  get busy() {
    return this.turns.some((each) => each.running);
  }

  // files: images and documents of the message.
  async send(text, files) {
    const request = { key: newKey(), text, session: this.session, agent: this.agent };
    const turn = { request, state: new RecordedState(), connection: "open", problem: null, running: true, files: files.map((each) => each.name) };
    this.turns = [...this.turns, turn];
    this.changed();
    try {
      if (files.length) request.attachments = await Promise.all(files.map((each) => this.#client().upload(each)));
    } catch (error) {
      this.#end(turn, error);
      return;
    }
    await this.#run(turn);
  }

  // The same under the same key: what has been done is not done again.
  retry(turn) {
    turn.state = new RecordedState();
    turn.problem = null;
    return this.#run(turn);
  }

  async stop(turn) {
    turn.stopping = true;
    this.changed();
    const stopped = await this.#client().cancel(turn.state.turn).catch(() => false);
    turn.stopping = false;
    turn.note = stopped ? "" : "It could not be stopped from here: it runs in another process.";
    this.changed();
  }

  clear() {
    this.#abort.abort();
    this.#abort = new AbortController();
    this.turns = [];
    this.session = "";
    this.changed();
  }

  async #run(turn) {
    const { signal } = this.#abort;
    const options = { signal, changed: (connection) => {
      turn.connection = connection;
      if (turn.state.session) this.session = turn.state.session;
      this.changed();
    } };
    turn.running = true;
    this.changed();
    try {
      const client = this.#client();
      await client.follow(turn.request, turn.state, options);
      while (turn.state.status === "paused") {
        turn.running = false;
        this.changed();
        await this.#wait(client, turn, options);
        turn.running = true;
        if (!turn.state.ended) await client.follow(turn.request, turn.state, options);
      }
      this.#end(turn, null);
    } catch (error) {
      if (!signal.aborted) this.#end(turn, error);
    }
  }

  // A decision may be taken here, on the page Decide, or by another person.
  async #wait(client, turn, options) {
    for (;;) {
      const decided = new Promise((resolve) => { turn.look = resolve; });
      await Promise.race([sleep(document.hidden ? 5 * POLL : POLL, options.signal), decided]);
      try {
        if (await client.poll(turn.state, options)) return;
      } catch (error) {
        if (options.signal.aborted || error.problem) throw error;
        if (!turn.state.ended) return;
      }
    }
  }

  #end(turn, error) {
    turn.running = false;
    turn.problem = turn.state.problem ?? (error && (error.problem ?? { code: "", detail: error.message }));
    if (turn.problem && !turn.problem.effects && !turn.request.session) this.session = "";
    this.changed();
  }

  // As who is logged in now: a login may have been renewed.
  #client() {
    const root = String(address("")).replace(/\/$/, "");
    const headers = { "x-console-token": me.token || "" };
    return new Client(root, null, { headers, credentials: "same-origin" });
  }
}
