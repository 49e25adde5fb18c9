// One turn as it is shown: the message of the user, and the answer as its state says.
import { readable, waitCard } from "./cards.js";
import { fill, words } from "./labels.js";
import { make, render } from "./markdown.js";

/** Shows a TurnState; `update` after each change. */
export class TurnView {
  #labels;
  #decide;
  #shown = [];
  #body;
  #note;

  /**
   * text: what the user has written; files: names of what goes with it. decide(part, body): async;
   * takes a decision about a call.
   * retry(): sends the message again.
   */
  constructor(state, { text, files, labels, decide, retry }) {
    this.state = state;
    this.#labels = labels;
    this.#decide = decide;
    this.connection = "open";
    this.#body = make("div", { className: "message assistant" });
    this.#note = make("p", { className: "note" });
    this.#body.append(make("span", { className: "aside" }, `${labels.assistant}: `), this.#note);
    this.retry = make("button", { type: "button", hidden: true, onclick: retry }, labels.retry);
    this.#body.append(make("div", { className: "row" }, this.retry));
    const said = text || files?.length ? [userMessage(text, labels, files)] : [];
    this.element = make("div", { className: "turn" }, ...said, this.#body);
  }

  /** problem: of the request, if it could not be made. */
  update(problem = this.state.problem) {
    const parts = this.state.parts.filter((part) => part.kind === "text" || part.kind === "wait");
    for (let at = 0; at < parts.length; at++) this.#show(at, parts[at]);
    for (const extra of this.#shown.splice(parts.length)) extra.element.remove();
    this.#say(problem);
    this.#body.setAttribute("aria-busy", String(this.state.status === "running" && !problem));
  }

  #show(at, part) {
    let shown = this.#shown[at];
    const kept = shown && ["kind", "id", "number"].every((name) => shown.part[name] === part[name]);
    if (!kept) {
      for (const extra of this.#shown.splice(at)) extra.element.remove();
      shown = part.kind === "text"
        ? { element: make("div", { className: "text" }) }
        : waitCard(part, this.#labels, (body) => this.#decide(part, body));
      this.#shown.push(Object.assign(shown, { part }));
      this.#note.before(shown.element);
    }
    if (part.kind === "text") render(shown.element, part.text);
    else shown.update(part);
  }

  #say(problem) {
    const note = this.#words(problem);
    if (this.#note.textContent !== note) this.#note.textContent = note;
    this.#note.hidden = !note;
    const stopped = problem?.code === "turn-cancelled";
    this.#note.classList.toggle("bad", Boolean(problem) && !stopped);
    this.#note.classList.toggle("dots", !problem && this.state.status === "running" && Boolean(note));
    const final = ["effect-unknown", "turn-interrupted", "upstream-refused"];
    this.retry.hidden = !problem || final.includes(problem.code);
  }

  #words(problem) {
    const { state } = this;
    const labels = this.#labels;
    if (problem) return words(problem, labels);
    if (state.status === "completed") {
      return { length: labels.cut, content_filter: labels.filtered }[state.finish] ?? "";
    }
    if (state.status !== "running") return "";
    if (this.connection !== "open") return labels[this.connection];
    if (state.queued) {
      const { position, seconds } = state.queued;
      return fill(labels.queued, { position, seconds: Math.max(1, Math.round(seconds)) });
    }
    const last = state.parts.at(-1);
    if (last?.kind === "tool" && !last.done) return fill(labels.working, { tool: readable(last.name) });
    return last?.kind === "text" ? "" : labels.thinking;
  }
}

export function userMessage(text, labels, files = []) {
  const who = make("span", { className: "aside" }, `${labels.you}: `);
  const named = files.map((name) => make("div", { className: "note" }, name));
  return make("div", { className: "message you" }, who, text, ...named);
}

/** What a person has written to whom the conversation was handed over. */
export function personMessage(text, labels) {
  const body = make("div", { className: "text" });
  render(body, text);
  return make("div", { className: "message person" }, make("div", { className: "who" }, labels.person), body);
}

/** The answer of a stored turn, as what the view of a turn shows. */
export function storedMessages(turn, labels) {
  const nodes = [];
  for (const message of turn.messages) {
    if (message.role === "user") {
      const files = (message.attachments ?? []).map((each) => each.name);
      nodes.push(userMessage(message.text, labels, files));
    } else if (message.role === "assistant" && message.by) nodes.push(personMessage(message.text, labels));
    else if (message.role === "assistant" && message.text) {
      const text = make("div", { className: "text" });
      render(text, message.text);
      const who = make("span", { className: "aside" }, `${labels.assistant}: `);
      nodes.push(make("div", { className: "message assistant" }, who, text));
    }
  }
  if (turn.problem) {
    nodes.push(make("p", { className: "note bad" }, words(turn.problem, labels)));
  }
  return nodes;
}
