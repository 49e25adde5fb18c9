// Cards of calls that wait: consent with the arguments shown, questions, hand-overs.
import { formFields } from "./form.js";
import { fill } from "./labels.js";
import { link, make } from "./markdown.js";

let numbered = 0;

/**
 * The card of a call that waits.
 *
 * decide(body): async; takes the decision. labels: what is said.
 */
export function waitCard(part, labels, decide) {
  const id = `card-${++numbered}`;
  const title = make("h3", { id });
  const card = make("div", { className: "card", role: "group", "aria-labelledby": id }, title);
  const outcome = make("p", { className: "note", hidden: true });
  const buttons = make("div", { className: "row" });
  let chosen = "";
  let body = [];

  const run = async (verdict, said) => {
    buttons.querySelectorAll("button").forEach((each) => (each.disabled = true));
    try {
      await decide(verdict);
      chosen = said;
    } catch (error) {
      if (error.problem?.code === "already-decided") chosen = labels.elsewhere;
      else buttons.querySelectorAll("button").forEach((each) => (each.disabled = false));
      throw error;
    } finally {
      update();
    }
  };
  const button = (label, verdict, said, name = "") =>
    make("button", { type: "button", className: name, onclick: () => {
      const taken = typeof verdict === "function" ? verdict() : verdict;
      if (taken) run(taken, said).catch(() => {});
    } }, label);

  if (part.waits === "input") {
    body = question();
  } else if (part.waits === "person") {
    title.textContent = labels.withPerson;
  } else {
    const others = part.role || part.waits === "client"; // who decides, or runs it
    title.textContent = others ? readable(part.name) : labels.consent;
    const name = others ? [] : [make("strong", {}, readable(part.name))];
    body = [...name, argumentList(part.arguments, labels)];
    if (others) {
      const role = part.role ?? labels.application;
      body.push(make("p", { className: "note" }, fill(labels.waitsFor, { role })));
    } else {
      buttons.append(
        button(labels.approve, { decision: "approve" }, labels.approved, "primary"),
        button(labels.reject, { decision: "reject" }, labels.rejected),
      );
    }
  }
  if (part.expires_at && part.waits !== "person") {
    const time = new Date(part.expires_at * 1000);
    const today = time.toDateString() === new Date().toDateString();
    const style = today ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" };
    const text = fill(labels.until, { time: time.toLocaleString(undefined, style) });
    buttons.append(make("span", { className: "note" }, text));
  }
  card.append(...body, buttons, outcome);
  update();
  return {
    element: card,
    update(changed) {
      part = changed;
      update();
    },
  };

  function question() {
    const { source, message, schema, url, number } = part.question;
    title.textContent = fill(labels.question, { source });
    const shown = [make("p", { className: "asked" }, message)];
    const decline = button(labels.decline, { decision: "decline", question: number }, labels.rejected);
    if (schema) {
      const form = formFields(schema, id);
      shown.push(form.element);
      const accept = () => {
        const content = form.values();
        return content && { decision: "accept", question: number, content };
      };
      buttons.append(button(labels.answer, accept, labels.done, "primary"), decline);
    } else {
      const accept = { decision: "accept", question: number };
      shown.push(make("p", {}, labels.visit, " ", link(url, url) ?? url));
      buttons.append(button(labels.visited, accept, labels.done, "primary"), decline);
    }
    return shown;
  }

  function update() {
    const over = part.done || Boolean(chosen);
    buttons.hidden = over;
    card.querySelectorAll(".fields input, .fields select").forEach((each) => (each.disabled = over));
    const returned = part.failed ? labels.notDone : labels.done;
    outcome.textContent = chosen || (part.done && part.waits === "approval" ? returned : "");
    outcome.hidden = !outcome.textContent;
  }
}

/** `get_order_details` as "get order details". */
export function readable(name) {
  return name.replace(/[_.-]+/g, " ").trim();
}

/** Arguments, which are JSON in a string, as a list of names and values. */
export function argumentList(text, labels) {
  let values;
  try {
    values = JSON.parse(text);
  } catch {
    return make("pre", {}, text);
  }
  if (!values || typeof values !== "object" || Array.isArray(values)) return make("pre", {}, text);
  const entries = Object.entries(values);
  if (!entries.length) return make("p", { className: "note" }, labels.noArguments);
  const rows = entries.flatMap(([name, value]) => [
    make("dt", {}, readable(name)),
    make("dd", {}, typeof value === "string" ? value : JSON.stringify(value, null, 1)),
  ]);
  return make("dl", {}, ...rows);
}
