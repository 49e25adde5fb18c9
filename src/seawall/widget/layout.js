// The parts of the chat as they are laid out: the button that opens it, and the panel.
import { make } from "./markdown.js";

const MAX_TEXT = 16384;
const NEAR = 80; // pixels from its end at which the log follows what is added
const WHOLE = "(max-width: 480px)"; // then the panel covers the page
const ICONS = {
  chat: "M21 12a8 8 0 0 1-8 8H4l2-3a8 8 0 1 1 15-5z",
  attach: "M20 11l-8.5 8.5a5 5 0 0 1-7-7L13 4a3.4 3.4 0 0 1 5 5l-8.5 8.5a1.7 1.7 0 0 1-2.5-2.5L15 7.5",
  close: "M5 5l14 14M19 5L5 19",
  fresh: "M12 5v14M5 12h14",
};

/** What is on the screen; `on` has the functions open, close, fresh, send(text) and stop. */
export class Layout {
  #on;
  #inline;
  #placeholder;

  #files = null;
  #chosen = null;

  /** files: whether messages may have some. */
  constructor(labels, inline, files, on) {
    this.#on = on;
    this.#inline = inline;
    this.#placeholder = labels.placeholder;
    this.launcher = make("button", {
      type: "button", className: "launcher", "aria-label": `${labels.open}: ${labels.title}`,
      "aria-expanded": "false", "aria-controls": "panel", onclick: on.open,
    }, icon("chat"), make("span", {}, labels.title));
    const close = iconButton("close", labels.close, on.close);
    close.hidden = inline;
    const header = make("header", {}, make("h2", { id: "title" }, labels.title),
      iconButton("fresh", labels.fresh, on.fresh), close);
    // Not spoken: pieces of text would be. `spoken` has whole answers.
    this.log = make("div", { className: "log", role: "log", tabIndex: 0, "aria-label": labels.log,
      "aria-live": "off" });
    this.status = make("div", { className: "status", role: "alert" });
    this.spoken = make("div", { className: "aside", role: "status" });
    this.input = make("textarea", { rows: 1, "aria-label": labels.message, maxLength: MAX_TEXT,
      placeholder: labels.placeholder, autocomplete: "off", oninput: () => this.compose() });
    this.send = make("button", { type: "submit", className: "primary" }, labels.send);
    this.stop = make("button", { type: "button", hidden: true, onclick: on.stop }, labels.stop);
    const form = make("form", { onsubmit: (event) => this.#submit(event) },
      ...(files ? this.#picker(labels) : []), this.input, this.send, this.stop);
    this.panel = make("section", { className: "panel", id: "panel", "aria-labelledby": "title",
      role: inline ? "region" : "dialog" }, header, this.log, this.spoken, this.status,
      this.#chosen ?? "", form);
    this.running = false;
  }

  /** The button that chooses files, and their names. */
  #picker(labels) {
    const drop = iconButton("close", labels.drop, () => {
      this.#files.value = "";
      changed();
    });
    const names = make("span", {});
    const changed = () => {
      names.textContent = [...this.#files.files].map((each) => each.name).join(", ");
      this.#chosen.hidden = !names.textContent;
      this.compose();
    };
    this.#files = make("input", { type: "file", multiple: true, hidden: true, onchange: changed,
      "aria-label": labels.attach, accept: "image/*,application/pdf,text/plain" });
    this.#chosen = make("div", { className: "row chosen", hidden: true }, names, drop);
    return [this.#files, iconButton("attach", labels.attach, () => this.#files.click())];
  }

  /** Show the panel, or the button that opens it. */
  toggle(open) {
    this.panel.hidden = !open;
    this.launcher.hidden = open;
    this.launcher.setAttribute("aria-expanded", String(open));
    if (open) this.scroll(true);
  }

  /** Let the user write, or say why not. */
  enable(reason = "") {
    this.input.disabled = Boolean(reason);
    this.input.placeholder = reason || this.#placeholder;
  }

  /** Bring the field and its buttons up to date. */
  compose(running = this.running) {
    this.running = running;
    const { input, send, stop } = this;
    input.style.height = "auto";
    if (input.scrollHeight) input.style.height = `${input.scrollHeight + 2}px`;
    const left = !running && input.getRootNode().activeElement === stop;
    send.hidden = running;
    send.disabled = !input.value.trim() && !this.#files?.files.length;
    stop.hidden = !running;
    if (left) input.focus(); // the focus was on the button that is hidden now
  }

  add(...nodes) {
    const near = this.near();
    this.log.append(...nodes);
    this.scroll(near);
  }

  /** Whether the reader is at the end of the log. */
  near() {
    return this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < NEAR;
  }

  scroll(follow) {
    if (follow) this.log.scrollTop = this.log.scrollHeight;
  }

  /** Have a text spoken by screen readers. */
  say(text) {
    this.spoken.textContent = text;
  }

  key(event, focused) {
    if (event.key === "Escape" && !event.isComposing) this.#on.close();
    if (event.key === "Enter" && event.target === this.input && !event.shiftKey && !event.isComposing) {
      this.#submit(event);
    }
    if (event.key !== "Tab" || this.#inline || !matchMedia(WHOLE).matches) return;
    const found = [...this.panel.querySelectorAll("button, textarea, input, select, a, [tabindex]")]
      .filter((each) => !each.disabled && each.offsetParent);
    const [from, to] = event.shiftKey ? [found[0], found.at(-1)] : [found.at(-1), found[0]];
    if (focused === from) { // the focus must not go behind the panel
      event.preventDefault();
      to.focus();
    }
  }

  #submit(event) {
    event.preventDefault();
    const text = this.input.value;
    const files = [...(this.#files?.files ?? [])];
    if ((!text.trim() && !files.length) || this.running) return;
    this.input.value = "";
    if (files.length) this.#files.value = "";
    if (this.#chosen) this.#chosen.hidden = true;
    this.compose();
    this.#on.send(text, files);
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
  const set = { type: "button", className: "plain", "aria-label": label, title: label, onclick };
  return make("button", set, icon(name));
}
