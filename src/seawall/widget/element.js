// <seawall-chat>: the chat as an element of any page.
import { Client, newKey, sleep, tokenFrom } from "./client.js";
import { TurnState } from "./events.js";
import { LABELS, words } from "./labels.js";
import { make } from "./markdown.js";
import { STYLE } from "./style.js";
import { TurnView, personMessage, storedMessages } from "./turn_view.js";

const POLLS = [1000, 2000, 3000, 5000, 8000]; // milliseconds between looks at a turn that waits
const PERSON_POLL = 3000;
const MAX_TEXT = 16384;
const NEAR = 80; // pixels from its end at which the log follows what is added

const ICONS = {
  chat: "M21 12a8 8 0 0 1-8 8H4l2-3a8 8 0 1 1 15-5z",
  close: "M5 5l14 14M19 5L5 19",
  fresh: "M12 5v14M5 12h14",
};

/**
 * The chat element.
 *
 * Attributes: server, agent, token-url, title-text, greeting, theme, placement, inline, open, labels
 * (JSON). A token comes from the address token-url, from the global function that token-function
 * names, or from the property `token`, an async function.
 */
export class SeawallChat extends HTMLElement {
  static observedAttributes = ["open"];

  #labels = LABELS;
  #client = null;
  #session = "";
  #pending = null;
  #parts = {};
  #turns = new Map();
  #conversation = new AbortController();
  #anchor = null;
  #wake = null;
  #running = false;
  #ready = null;

  connectedCallback() {
    if (this.shadowRoot) return;
    const changed = this.getAttribute("labels");
    this.#labels = { ...LABELS, ...(changed ? JSON.parse(changed) : {}) };
    for (const [label, attribute] of [["title", "title-text"], ["greeting", "greeting"]]) {
      if (this.hasAttribute(attribute)) this.#labels[label] = this.getAttribute(attribute);
    }
    const root = this.attachShadow({ mode: "open" });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
    root.adoptedStyleSheets = [sheet];
    root.append(this.#launcher(), this.#panel());
    root.addEventListener("keydown", (event) => this.#key(event));
    if (this.hasAttribute("inline")) this.setAttribute("open", "");
    else if (this.#stored("open")) this.setAttribute("open", "");
    this.#toggled();
    this.#show();
  }

  disconnectedCallback() {
    queueMicrotask(() => { // unless the page has only moved it
      if (!this.isConnected) this.#conversation.abort();
    });
  }

  attributeChangedCallback() {
    if (this.shadowRoot) this.#toggled();
  }

  /** Show the panel, and put the focus into it. */
  open() {
    this.setAttribute("open", "");
    this.#parts.input.focus();
  }

  close() {
    if (this.hasAttribute("inline")) return;
    this.removeAttribute("open");
    this.#parts.launcher.focus();
  }

  /** Send a message as if the user had written it; resolves when it is answered or waits. */
  async send(text) {
    await this.#ready;
    if (!text.trim() || this.#running) return;
    const agent = this.getAttribute("agent") ?? "";
    await this.#run({ key: newKey(), text, session: this.#session, agent });
  }

  /** Forget the conversation in this tab; the server keeps it. */
  restart() {
    this.#conversation.abort();
    this.#conversation = new AbortController();
    this.#session = "";
    this.#pending = null;
    this.#running = false;
    this.#store();
    this.#turns.clear();
    this.#parts.log.replaceChildren();
    this.#greet();
    this.#composer();
    this.#parts.input.focus();
  }

  // --- parts

  #launcher() {
    const label = make("span", {}, this.#labels.title);
    const button = make("button", {
      type: "button", className: "launcher", "aria-label": this.#labels.open,
      "aria-expanded": "false", "aria-controls": "panel", onclick: () => this.open(),
    }, icon("chat"), label);
    this.#parts.launcher = button;
    return button;
  }

  #panel() {
    const labels = this.#labels;
    const fresh = iconButton("fresh", labels.fresh, () => this.restart());
    const close = iconButton("close", labels.close, () => this.close());
    close.hidden = this.hasAttribute("inline");
    const header = make("header", {}, make("h2", { id: "title" }, labels.title), fresh, close);
    const log = make("div", { className: "log", role: "log", tabIndex: 0, "aria-label": labels.log,
      "aria-live": "off" }); // what is spoken is in `spoken`: whole answers, not pieces
    const status = make("div", { className: "status", role: "alert" });
    const spoken = make("div", { className: "aside", role: "status" });
    const input = make("textarea", { rows: 1, "aria-label": labels.message, maxLength: MAX_TEXT,
      placeholder: labels.placeholder, autocomplete: "off", oninput: () => this.#composer() });
    const send = make("button", { type: "submit", className: "primary" }, labels.send);
    const stop = make("button", { type: "button", hidden: true, onclick: () => this.#stop() },
      labels.stop);
    const form = make("form", { onsubmit: (event) => this.#submit(event) }, input, send, stop);
    const inline = this.hasAttribute("inline");
    const panel = make("section", { className: "panel", id: "panel",
      role: inline ? "region" : "dialog", "aria-labelledby": "title" },
    header, log, spoken, status, form);
    Object.assign(this.#parts, { panel, log, status, spoken, input, send, stop, close });
    return panel;
  }

  #toggled() {
    const open = this.hasAttribute("open");
    const { panel, launcher } = this.#parts;
    panel.hidden = !open;
    launcher.hidden = open;
    launcher.setAttribute("aria-expanded", String(open));
    this.#store();
    if (open) this.#scroll(true);
  }

  #composer() {
    const { input, send, stop } = this.#parts;
    input.style.height = "auto";
    if (input.scrollHeight) input.style.height = `${input.scrollHeight + 2}px`;
    send.hidden = this.#running;
    send.disabled = !input.value.trim();
    stop.hidden = !this.#running;
  }

  #key(event) {
    const { input, panel } = this.#parts;
    if (event.key === "Escape" && !event.isComposing) this.close();
    if (event.key === "Enter" && event.target === input && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      this.#submit(event);
    }
    const whole = matchMedia("(max-width: 480px)").matches && !this.hasAttribute("inline");
    if (event.key === "Tab" && whole) { // it covers the page: the focus must not go behind it
      const found = [...panel.querySelectorAll("button, textarea, input, select, a[href], [tabindex]")]
        .filter((each) => !each.disabled && each.offsetParent);
      const [from, to] = event.shiftKey ? [found[0], found.at(-1)] : [found.at(-1), found[0]];
      if (this.shadowRoot.activeElement === from) {
        event.preventDefault();
        to.focus();
      }
    }
  }

  #submit(event) {
    event.preventDefault();
    const { input } = this.#parts;
    const text = input.value;
    if (!text.trim() || this.#running) return;
    input.value = "";
    this.#composer();
    this.send(text);
  }

  #add(...nodes) {
    const near = this.#near();
    this.#parts.log.append(...nodes);
    this.#scroll(near);
  }

  #near() {
    const { log } = this.#parts;
    return log.scrollHeight - log.scrollTop - log.clientHeight < NEAR;
  }

  #scroll(follow) {
    if (follow) this.#parts.log.scrollTop = this.#parts.log.scrollHeight;
  }

  #say(text) {
    this.#parts.spoken.textContent = text;
  }

  #greet() {
    if (!this.#labels.greeting) return;
    this.#add(make("div", { className: "message assistant" },
      make("div", { className: "text" }, make("p", {}, this.#labels.greeting))));
  }

  // --- conversation

  /** Show what this tab was in the middle of, if anything. */
  #show() {
    const kept = this.#stored();
    this.#session = kept.session ?? "";
    this.#pending = kept.pending ?? null;
    this.#greet();
    this.#running = Boolean(this.#session || this.#pending);
    this.#composer();
    this.#ready = this.#load();
  }

  async #load() {
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
        } else this.#parts.status.textContent = words(error.problem ?? { code: "connection-lost" }, this.#labels);
      }
    }
    this.#running = false;
    this.#composer();
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
      if (turn.id === followed) this.#add(this.#anchor = document.createComment("turn"));
      else if (!this.#turns.has(turn.id)) this.#keep(turn.id, storedMessages(turn, this.#labels));
    }
  }

  #keep(turn, nodes) {
    const element = make("div", { className: "turn" }, ...nodes);
    this.#turns.set(turn, element);
    this.#add(element);
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
      text: pending.text, labels: this.#labels,
      decide: (part, body) => this.#decide(view, part, body),
      retry: () => this.#retry(pending, view),
    });
    this.#running = true;
    this.#pending = pending;
    this.#parts.status.textContent = "";
    this.#store();
    if (this.#anchor) this.#anchor.replaceWith(view.element);
    else this.#add(view.element);
    this.#anchor = null;
    this.#scroll(true);
    this.#composer();
    let problem = null;
    try {
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
        const near = this.#near();
        view.update();
        this.#scroll(near);
      }, 30);
    };
    const api = this.#api();
    view.update();
    try {
      await api.follow(pending, state, { signal, changed });
      while (state.status === "paused") {
        view.update();
        this.#paused(state);
        await this.#wait(state, { signal, changed });
        this.#goesOn(pending);
        if (!state.ended) await api.follow(pending, state, { signal, changed });
      }
    } finally {
      clearTimeout(scheduled);
    }
  }

  /** Keep what a reload needs as soon as it is known. */
  #note(pending, state, view) {
    if (state.turn && state.turn !== pending.turn) {
      pending.turn = state.turn;
      this.#turns.get(state.turn)?.remove(); // it was shown as a part of the stored session
      this.#turns.set(state.turn, view.element);
    }
    if (state.session) this.#session = state.session;
    this.#store();
  }

  /** Until something happens to a turn that waits for somebody. */
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
      if (said) this.#say(`${this.#labels.person}: ${said.text}`);
    }
  }

  #paused(state) {
    const [wait] = state.waits;
    const person = wait?.waits === "person";
    this.#running = false;
    this.#composer();
    const input = this.#parts.input;
    input.disabled = Boolean(wait) && !person;
    if (!wait) return;
    if (person) this.#say(this.#labels.withPerson);
    else this.#say(wait.question?.message ?? `${this.#labels.consent} ${wait.name}`);
  }

  #goesOn(pending) {
    this.#pending = pending;
    this.#running = true;
    this.#parts.input.disabled = false;
    this.#composer();
  }

  async #decide(view, part, body) {
    try {
      await this.#api().decide(part.turn, part.id, body);
    } catch (error) {
      if (!error.problem) error.problem = { code: "connection-lost" };
      this.#parts.status.textContent = words(error.problem, this.#labels);
      throw error;
    } finally {
      this.#wake?.();
    }
    this.#parts.status.textContent = "";
    part.decided = true;
    const [next] = view.state.waits.filter((each) => !each.decided);
    if (next) return; // the next card follows in the order of the keyboard
    this.#parts.input.disabled = false;
    this.#parts.input.focus();
  }

  #ended(pending, state, view, problem) {
    const near = this.#near();
    view.update(problem);
    this.#scroll(near);
    const code = problem?.code;
    if (code === "session-not-found") this.#session = pending.session = pending.key = "";
    // A turn that would have opened the session and has failed has not done so.
    else if (problem && !problem.effects && !pending.session && code !== "connection-lost") {
      this.#session = "";
    }
    const kept = code === "connection-lost" || code === "unauthenticated" || code === "no-token";
    if (!kept) this.#pending = null; // a reload tries again
    this.#running = false;
    this.#parts.input.disabled = false;
    this.#store();
    this.#composer();
    this.#say(problem ? words(problem, this.#labels) : state.text);
  }

  /** The same message under the same key: what was done is not done again. */
  #retry(pending, view) {
    if (this.#running) return;
    view.element.remove();
    this.#turns.delete(pending.turn);
    const { text, session, agent } = pending;
    this.#run({ key: pending.key || newKey(), text, session, agent });
    this.#parts.input.focus();
  }

  async #stop() {
    const { status, stop } = this.#parts;
    const pending = this.#pending;
    stop.disabled = true;
    status.textContent = this.#labels.stopping;
    let stopped = false;
    try {
      stopped = pending?.turn ? await this.#api().cancel(pending.turn) : false;
    } catch {
      // said below
    }
    stop.disabled = false;
    if (!this.#running) this.#parts.input.focus();
    status.textContent = stopped || !this.#running ? "" : this.#labels.notStopped;
  }

  // --- what a reload of the page continues from; never a token

  #name() {
    return `seawall-chat ${this.getAttribute("server") ?? ""} ${this.getAttribute("agent") ?? ""}`;
  }

  #stored(field) {
    let kept = {};
    try {
      kept = JSON.parse(sessionStorage.getItem(this.#name())) ?? {};
    } catch {
      // the page may not use storage: a reload begins a new conversation
    }
    return field ? kept[field] : kept;
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

function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const path = document.createElementNS(space, "path");
  path.setAttribute("d", ICONS[name]);
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.append(path);
  return svg;
}

function iconButton(name, label, onclick) {
  return make("button", { type: "button", className: "plain", "aria-label": label, title: label, onclick },
    icon(name));
}
