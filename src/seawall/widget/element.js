// <seawall-chat>: the chat as an element of any page.
import { Client, newKey, sleep, tokenFrom } from "./client.js";
import { TurnState } from "./events.js";
import { LABELS, PROBLEMS, words } from "./labels.js";
import { Layout } from "./layout.js";
import { make } from "./markdown.js";
import { STYLE } from "./style.js";
import { TurnView, storedMessages } from "./turn_view.js";

const POLLS = [1000, 2000, 3000, 5000, 8000]; // milliseconds between looks at a turn that waits
const PERSON_POLL = 3000;

/**
 * The chat element.
 *
 * Attributes: server, agent, token-url, title-text, greeting, theme, placement, inline, open, files,
 * labels (JSON). A token comes from the address token-url, from the global function that token-function
 * names, or from the property `token`, an async function.
 */
export class SeawallChat extends HTMLElement {
  static observedAttributes = ["open"];

  #labels = LABELS;
  #client = null;
  #session = "";
  #pending = null;
  #layout = null;
  #turns = new Map();
  #conversation = new AbortController();
  #anchor = null;
  #wake = null;
  #ready = null;

  connectedCallback() {
    if (this.shadowRoot) return;
    const kept = this.#stored();
    this.#session = kept.session ?? "";
    this.#pending = kept.pending ?? null;
    const changed = this.getAttribute("labels");
    this.#labels = { ...LABELS, ...(changed ? JSON.parse(changed) : {}) };
    for (const [label, attribute] of [["title", "title-text"], ["greeting", "greeting"]]) {
      if (this.hasAttribute(attribute)) this.#labels[label] = this.getAttribute(attribute);
    }
    const root = this.attachShadow({ mode: "open" });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
    root.adoptedStyleSheets = [sheet];
    const inline = this.hasAttribute("inline");
    this.#layout = new Layout(this.#labels, inline, this.hasAttribute("files"), {
      open: () => this.open(), close: () => this.close(), fresh: () => this.restart(),
      send: (text, files) => this.send(text, files), stop: () => this.#stop(),
    });
    root.append(this.#layout.launcher, this.#layout.panel);
    root.addEventListener("keydown", (event) => this.#layout.key(event, root.activeElement));
    if (inline || kept.open) this.setAttribute("open", "");
    this.attributeChangedCallback();
    this.#greet();
    this.#layout.compose(Boolean(this.#session || this.#pending));
    this.#ready = this.#load();
  }

  disconnectedCallback() {
    queueMicrotask(() => { // unless the page has only moved it
      if (!this.isConnected) this.#conversation.abort();
    });
  }

  attributeChangedCallback() {
    if (!this.#layout) return;
    this.#layout.toggle(this.hasAttribute("open"));
    this.#store();
  }

  /** Show the panel, and put the focus into it. */
  open() {
    this.setAttribute("open", "");
    this.#layout.input.focus();
  }

  close() {
    if (this.hasAttribute("inline")) return;
    this.removeAttribute("open");
    this.#layout.launcher.focus();
  }

  /** Send a message as if the user had written it; resolves when it is answered or waits. */
  async send(text, files = []) {
    await this.#ready;
    if ((!text.trim() && !files.length) || this.#layout.running) return;
    const agent = this.getAttribute("agent") ?? "";
    const names = files.map((each) => each.name);
    const pending = { key: newKey(), text, session: this.#session, agent, names };
    if (files.length) {
      this.#layout.compose(true);
      try {
        pending.attachments = await Promise.all(files.map((each) => this.#api().upload(each)));
      } catch (error) {
        const { problem = { code: "connection-lost" } } = error;
        const known = problem.code in PROBLEMS && problem.code !== "invalid-field";
        this.#layout.status.textContent = words(known ? problem : { code: "invalid-file" }, this.#labels);
        const { input } = this.#layout;
        input.value = input.value ? `${text}\n${input.value}` : text; // what was typed meanwhile stays
        this.#layout.compose(false);
        return;
      }
    }
    await this.#run(pending);
  }

  /** Forget the conversation in this tab; the server keeps it. */
  restart() {
    this.#conversation.abort();
    this.#conversation = new AbortController();
    this.#session = "";
    this.#pending = null;
    this.#store();
    this.#turns.clear();
    this.#layout.log.replaceChildren();
    this.#greet();
    this.#layout.compose(false);
    this.#layout.input.focus();
  }

  // --- conversation

  #greet() {
    if (!this.#labels.greeting) return;
    this.#layout.add(make("div", { className: "message assistant" },
      make("div", { className: "text" }, make("p", {}, this.#labels.greeting))));
  }

  /** Show what this tab was in the middle of, if anything. */
  async #load() {
    if (this.#pending && !(await this.#isOwn(this.#pending))) {
      this.#session = "";
      this.#pending = null;
      this.#store();
    }
    const pending = this.#pending;
    if (this.#session) {
      try {
        await this.#history(pending?.turn);
      } catch (error) {
        const code = error.problem?.code;
        if (code === "session-not-found") { // it has expired, or is another user's
          if (!this.#pending?.key) this.#pending = null;
          this.#session = "";
          this.#store();
        } else {
          const problem = error.problem ?? { code: "connection-lost" };
          this.#layout.status.textContent = words(problem, this.#labels);
        }
      }
    }
    this.#layout.compose(false);
    if (this.#pending) this.#run(this.#pending); // not awaited: it may take minutes
  }

  async #history(pending) {
    const { turns } = await this.#api().session(this.#session);
    const waiting = turns.find((each) => each.status === "paused" || each.status === "open");
    if (waiting && !this.#pending) {
      const said = waiting.messages.find((each) => each.role === "user");
      this.#pending = { turn: waiting.id, text: said?.text ?? "", session: this.#session };
    }
    const followed = pending ?? waiting?.id;
    for (const turn of turns.reverse()) {
      if (turn.id === followed) this.#layout.add(this.#anchor = document.createComment("turn"));
      else if (!this.#turns.has(turn.id)) this.#keep(turn.id, storedMessages(turn, this.#labels));
    }
  }

  /** Whether who is signed in now has written a message; another user may have used this tab. */
  async #isOwn(pending) {
    try {
      const who = await this.#api().who();
      return (pending.who ?? who) === who;
    } catch {
      return true; // not signed in: nothing can be sent
    }
  }

  #keep(turn, nodes) {
    const element = make("div", { className: "turn" }, ...nodes);
    this.#turns.set(turn, element);
    this.#layout.add(element);
  }

  #api() {
    if (!this.#client) {
      const url = this.getAttribute("token-url");
      const name = this.getAttribute("token-function");
      const source = () => this.token ?? (name ? window[name] : tokenFrom(new URL(url, document.baseURI)));
      const needed = this.token || url || name;
      this.#client = new Client(this.getAttribute("server") || location.origin,
        needed ? async () => source()() : null);
    }
    return this.#client;
  }

  /** Run a turn, or follow one that was begun, until it is answered; waits are waited for. */
  async #run(pending) {
    const state = new TurnState();
    state.turn = pending.turn ?? "";
    const { signal } = this.#conversation;
    const view = new TurnView(state, {
      text: pending.text, files: pending.names, labels: this.#labels,
      decide: (part, body) => this.#decide(view, part, body),
      retry: () => this.#retry(pending, view),
    });
    this.#pending = pending;
    this.#layout.status.textContent = "";
    this.#store();
    if (this.#anchor) this.#anchor.replaceWith(view.element);
    else this.#layout.add(view.element);
    this.#anchor = null;
    this.#layout.scroll(true);
    this.#layout.compose(true);
    let problem = null;
    try {
      pending.who ??= await this.#api().who().catch(() => undefined); // fails again below
      this.#store();
      await this.#follow(pending, state, view, signal);
    } catch (error) {
      if (signal.aborted) return;
      problem = error.problem ?? { code: "connection-lost" };
    }
    this.#ended(pending, state, view, problem ?? state.problem);
  }

  async #follow(pending, state, view, signal) {
    let scheduled = 0;
    const changed = (connection) => {
      view.connection = connection;
      this.#note(pending, state, view);
      scheduled ||= setTimeout(() => { // also while the page is in the background
        scheduled = 0;
        this.#update(view);
      }, 30);
    };
    const api = this.#api();
    this.#update(view);
    try {
      await api.follow(pending, state, { signal, changed });
      while (state.status === "paused") {
        this.#update(view);
        this.#paused(state);
        await this.#wait(state, { signal, changed });
        this.#goesOn(pending);
        if (!state.ended) await api.follow(pending, state, { signal, changed });
      }
    } finally {
      clearTimeout(scheduled);
    }
  }

  /** The view as its state is; a reader at the end of the log stays there. */
  #update(view, problem) {
    const near = this.#layout.near();
    view.update(problem);
    this.#layout.scroll(near);
  }

  /** Keep what a reload needs as soon as it is known. */
  #note(pending, state, view) {
    if (!state.turn || this.#turns.get(state.turn) === view.element) return;
    pending.turn = state.turn;
    this.#turns.get(state.turn)?.remove(); // it was shown as a part of the stored session
    this.#turns.set(state.turn, view.element);
    if (state.session) this.#session = state.session;
    this.#store();
  }

  /** Until something happens to a turn that waits for a person. */
  async #wait(state, options) {
    const person = state.waits.some((each) => each.waits === "person");
    for (let count = 0; ; count++) {
      const pause = person ? PERSON_POLL : POLLS[Math.min(count, POLLS.length - 1)];
      const woken = new Promise((resolve) => (this.#wake = resolve));
      await Promise.race([sleep(document.hidden ? pause * 4 : pause, options.signal), woken]);
      try {
        if (person) await this.#heard();
        if (await this.#api().poll(state, options)) return;
      } catch (error) {
        if (options.signal.aborted) throw error;
        const code = error.problem?.code;
        if (!state.ended) return; // it was cut off while it went on
        if (code === "turn-not-found" || code === "unauthenticated" || code === "no-token") throw error;
      }
    }
  }

  /** Show what the person has said meanwhile. */
  async #heard() {
    const { turns } = await this.#api().session(this.#session, 20);
    for (const turn of turns.reverse()) {
      if (!turn.during || this.#turns.has(turn.id)) continue;
      this.#keep(turn.id, storedMessages(turn, this.#labels));
      const said = turn.messages.find((each) => each.by);
      if (said) this.#layout.say(`${this.#labels.person}: ${said.text}`);
    }
  }

  #paused(state) {
    const [wait] = state.waits;
    const person = wait?.waits === "person";
    this.#layout.compose(false);
    this.#layout.enable(wait && !person ? this.#labels.first : "");
    if (!wait) return;
    if (person) this.#layout.say(this.#labels.withPerson);
    else this.#layout.say(wait.question?.message ?? `${this.#labels.consent} ${wait.name}`);
  }

  #goesOn(pending) {
    this.#pending = pending;
    this.#layout.enable();
    this.#layout.compose(true);
  }

  async #decide(view, part, body) {
    try {
      await this.#api().decide(part.turn, part.id, body);
    } catch (error) {
      if (!error.problem) error.problem = { code: "connection-lost" };
      this.#layout.status.textContent = words(error.problem, this.#labels);
      throw error;
    } finally {
      this.#wake?.();
    }
    this.#layout.status.textContent = "";
    part.decided = true;
    const [next] = view.state.waits.filter((each) => !each.decided);
    if (next) return; // the next card follows in the order of the keyboard
    this.#layout.enable();
    this.#layout.input.focus();
  }

  #ended(pending, state, view, problem) {
    this.#update(view, problem);
    const code = problem?.code;
    if (code === "session-not-found") this.#session = pending.session = pending.key = "";
    // A turn that would have opened the session and has failed has not done so.
    else if (problem && !problem.effects && !pending.session && code !== "connection-lost") {
      this.#session = "";
    }
    const kept = code === "connection-lost" || code === "unauthenticated" || code === "no-token";
    if (!kept) this.#pending = null; // a reload tries again
    this.#layout.enable();
    this.#store();
    this.#layout.compose(false);
    this.#layout.say(problem ? words(problem, this.#labels) : state.text);
  }

  /** The same message under the same key: what was done is not done again. */
  async #retry(pending, view) {
    if (!(await this.#isOwn(pending))) this.restart();
    else if (!this.#layout.running) this.#again(pending, view);
  }

  #again(pending, view) {
    view.element.remove();
    this.#turns.delete(pending.turn);
    this.#run({ ...pending, key: pending.key || newKey(), turn: "" });
    this.#layout.input.focus();
  }

  async #stop() {
    const { status, stop } = this.#layout;
    const pending = this.#pending;
    const { signal } = this.#conversation;
    if (stop.getAttribute("aria-disabled") === "true") return;
    stop.setAttribute("aria-disabled", "true"); // a disabled one would lose the focus
    status.textContent = this.#labels.stopping;
    let stopped = false;
    try {
      // It has no id before it has begun, which may be after a wait in the queue.
      while (!pending.turn && this.#layout.running) await sleep(100, signal);
      if (this.#layout.running) stopped = await this.#api().cancel(pending.turn);
    } catch {
      // said below
    }
    stop.removeAttribute("aria-disabled");
    status.textContent = stopped || !this.#layout.running ? "" : this.#labels.notStopped;
  }

  // --- what a reload of the page continues from; never a token

  #name() {
    return `seawall-chat ${this.getAttribute("server") ?? ""} ${this.getAttribute("agent") ?? ""}`;
  }

  #stored() {
    try {
      return JSON.parse(sessionStorage.getItem(this.#name())) ?? {};
    } catch {
      return {}; // the page may not use storage: a reload begins a new conversation
    }
  }

  #store() {
    const kept = { session: this.#session, pending: this.#pending, open: this.hasAttribute("open") };
    try {
      sessionStorage.setItem(this.#name(), JSON.stringify(kept));
    } catch {
      // as above
    }
  }
}
