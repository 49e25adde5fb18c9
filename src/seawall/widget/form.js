// The form of a question that a tool asks the user: a JSON Schema of plain fields.
import { make } from "./markdown.js";

const INPUTS = { email: "email", uri: "url", date: "date", "date-time": "datetime-local" };

/** Fields in an element, and a function that reads their values; null if one does not fit. */
export function formFields(schema, prefix) {
  const fields = Object.entries(schema.properties ?? {}).map(([name, field], at) =>
    control(name, field, (schema.required ?? []).includes(name), `${prefix}-${at}`));
  const element = make("div", { className: "fields" }, ...fields.map((each) => each.element));
  const values = () => {
    const wrong = fields.find((each) => !each.check());
    if (wrong) {
      wrong.report();
      return null;
    }
    const entered = fields.map((each) => [each.name, each.value()]);
    return Object.fromEntries(entered.filter(([, value]) => value !== undefined));
  };
  return { element, values };
}

function control(name, field, required, id) {
  const title = field.title || name;
  const help = field.description
    ? make("span", { className: "help", id: `${id}-help` }, field.description)
    : "";
  const described = help ? { "aria-describedby": help.id } : {};
  if (field.type === "boolean") {
    const input = make("input", { type: "checkbox", id, checked: field.default === true, ...described });
    const label = make("label", { className: "check", htmlFor: id }, input, title);
    return plain(name, make("div", {}, label, help), input, () => input.checked);
  }
  const choices = choicesOf(field);
  if (field.type === "array") return several(name, field, title, help, choices ?? [], id);
  const input = choices
    ? make("select", { id, required, ...described }, ...options(choices, field.default))
    : make("input", { ...textInput(field), id, required, ...described });
  if (!choices && field.default !== undefined) input.value = String(field.default);
  const label = make("label", { htmlFor: id }, title);
  return plain(name, make("div", {}, label, input, help), input, () => valueOf(field, input.value));
}

function plain(name, element, input, value) {
  return {
    name, element, value, check: () => input.checkValidity(), report: () => input.reportValidity(),
  };
}

function several(name, field, title, help, choices, id) {
  const chosen = field.default ?? [];
  const boxes = choices.map(([value]) =>
    make("input", { type: "checkbox", value, checked: chosen.includes(value) }));
  const labels = boxes.map((box, at) => make("label", { className: "check" }, box, choices[at][1]));
  const error = make("span", { className: "error", id: `${id}-error`, role: "alert" });
  const element = make(
    "fieldset", { "aria-describedby": error.id }, make("legend", {}, title), help, ...labels, error,
  );
  const values = () => boxes.filter((box) => box.checked).map((box) => box.value);
  const least = field.minItems ?? 0;
  const most = field.maxItems ?? choices.length;
  return {
    name,
    element,
    value: values,
    check: () => values().length >= least && values().length <= most,
    report() {
      error.textContent = least === most ? `Choose ${least}.` : `Choose ${least} to ${most}.`;
      boxes[0]?.focus();
    },
  };
}

/** The choices of a field as [value, title], or undefined. */
function choicesOf(field) {
  const source = field.type === "array" ? field.items ?? {} : field;
  const titled = source.oneOf ?? source.anyOf;
  if (titled) return titled.map((each) => [each.const, each.title || each.const]);
  return source.enum?.map((value, at) => [value, field.enumNames?.[at] ?? value]);
}

function options(choices, chosen) {
  const none = make("option", { value: "" }, "–");
  return [none, ...choices.map(([value, title]) =>
    make("option", { value, selected: value === chosen }, title))];
}

function textInput(field) {
  if (field.type === "string") {
    const limits = { minLength: field.minLength, maxLength: field.maxLength };
    const set = Object.fromEntries(Object.entries(limits).filter(([, value]) => value >= 0));
    return { type: INPUTS[field.format] ?? "text", ...set };
  }
  const range = { min: field.minimum, max: field.maximum };
  const set = Object.fromEntries(Object.entries(range).filter(([, value]) => value !== undefined));
  return { type: "number", step: field.type === "integer" ? "1" : "any", ...set };
}

function valueOf(field, text) {
  if (text === "") return undefined;
  if (field.type !== "string") return Number(text);
  return field.format === "date-time" ? new Date(text).toISOString() : text;
}
