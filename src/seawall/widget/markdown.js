// A small part of Markdown as nodes of the document. Text never becomes HTML.

// No expression here takes more than linear time, whatever a model writes.
const SPECIAL = /```|`([^`\n]+)`|\*\*([^*\n]+)\*\*|\*([^*\s][^*\n]*)\*|\[([^[\]\n]+)\]\(([^()\s]+)\)|https?:\/\/[^\s<>"')\]]+/g;
const FENCE = /^ {0,3}```/;
const ITEM = /^ {0,3}(?:[-*+]|(\d{1,9})[.)])\s+/;
const HEADING = /^ {0,3}#{1,6}\s+(?=\S)(.*)$/s;
const MAX_CHARACTERS = 200000;

/**
 * Show a text in an element. Called again with a longer text, it replaces only the blocks that
 * have changed.
 */
export function render(element, text) {
  const blocks = split(text.slice(0, MAX_CHARACTERS));
  const shown = element.blocks ?? [];
  let same = 0;
  while (same < shown.length && same < blocks.length && shown[same] === blocks[same]) same++;
  while (element.childNodes.length > same) element.lastChild.remove();
  for (const block of blocks.slice(same)) element.append(blockNode(block));
  element.blocks = blocks;
}

/** The blocks of a text: paragraphs, headings, lists, code between fences. */
function split(text) {
  const blocks = [];
  let lines = [];
  let fenced = false;
  const end = () => {
    if (lines.length) blocks.push(lines.join("\n"));
    lines = [];
  };
  for (const line of text.replace(/\r\n?/g, "\n").split("\n")) {
    if (fenced) {
      lines.push(line);
      if (FENCE.test(line)) {
        fenced = false;
        end();
      }
    } else if (FENCE.test(line)) {
      end();
      lines.push(line);
      fenced = true;
    } else if (!line.trim()) {
      end();
    } else if (HEADING.test(line)) {
      end();
      blocks.push(line);
    } else {
      const before = lines.length && ITEM.test(lines[0]);
      if (lines.length && Boolean(ITEM.test(line)) !== Boolean(before) && !/^\s/.test(line)) end();
      lines.push(line);
    }
  }
  end();
  return blocks;
}

function blockNode(block) {
  const lines = block.split("\n");
  if (FENCE.test(lines[0])) {
    const closed = lines.length > 1 && FENCE.test(lines.at(-1));
    const code = make("code", {}, lines.slice(1, closed ? -1 : undefined).join("\n"));
    return make("pre", { tabIndex: 0 }, code);
  }
  const heading = HEADING.exec(lines[0]);
  if (heading) return make("p", { className: "heading" }, inline(withoutMarks(heading[1])));
  if (ITEM.test(lines[0])) return list(lines);
  return make("p", {}, inlineLines(lines));
}

/** The text of a heading without the marks that may close it. */
function withoutMarks(text) {
  let end = text.length;
  while (end && text[end - 1] === "#") end--;
  return text.slice(0, end).trimEnd();
}

function list(lines) {
  const number = ITEM.exec(lines[0])[1];
  const element = make(number === undefined ? "ul" : "ol");
  if (number !== undefined && number !== "1") element.start = Number(number);
  const items = [];
  for (const line of lines) {
    if (ITEM.test(line)) items.push([line.replace(ITEM, "")]);
    else items.at(-1).push(line.trim().replace(/^(?:[-*+]|\d{1,9}[.)])\s+/, "– "));
  }
  for (const item of items) element.append(make("li", {}, inlineLines(item)));
  return element;
}

function inlineLines(lines) {
  return lines.flatMap((line, at) => (at ? [make("br"), ...inline(line)] : inline(line)));
}

function inline(text) {
  const nodes = [];
  let from = 0;
  for (const found of text.matchAll(SPECIAL)) {
    const node = special(found);
    if (!node) continue;
    nodes.push(text.slice(from, found.index), node);
    from = found.index + found[0].length;
  }
  nodes.push(text.slice(from));
  return nodes;
}

function special([whole, code, strong, emphasis, label, target]) {
  if (code !== undefined) return make("code", {}, code);
  if (strong !== undefined) return make("strong", {}, strong);
  if (emphasis !== undefined) return make("em", {}, emphasis);
  if (label !== undefined) return link(target, label);
  if (whole.startsWith("http")) return link(whole, whole);
  return null;
}

/** A link to a page, or null: other schemes, such as javascript:, stay text. */
export function link(target, label) {
  let url;
  try {
    url = new URL(target);
  } catch {
    return null;
  }
  if (url.protocol !== "https:" && url.protocol !== "http:") return null;
  return make("a", { href: url.href, target: "_blank", rel: "noopener noreferrer nofollow" }, label);
}

/** An element with properties, and children or lists of them; strings become text. */
export function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in element && !key.startsWith("aria-")) element[key] = value;
    else if (value !== undefined && value !== null) element.setAttribute(key, value);
  }
  for (const child of children.flat()) element.append(child); // more than can be arguments
  return element;
}
