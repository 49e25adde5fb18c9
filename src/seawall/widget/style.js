// The style inside the shadow tree.

// Important declarations of a shadow tree win over important ones of the page around it:
// https://drafts.csswg.org/css-cascade-5/#cascade-context. So the page cannot hide the widget.
export const STYLE = `
:host {
  all: initial !important;
  display: block !important;
  position: fixed !important;
  inset: auto max(16px, env(safe-area-inset-right)) max(16px, env(safe-area-inset-bottom)) auto !important;
  z-index: var(--seawall-z-index, 2147483000) !important;
  font: var(--seawall-font-size, 15px)/1.45 var(--seawall-font, system-ui, sans-serif) !important;
  color-scheme: light dark !important;
  --accent: var(--seawall-accent, #0b57d0);
  --on-accent: var(--seawall-on-accent, #fff);
  --back: var(--seawall-background, #fff);
  --text: var(--seawall-text, #1b1c1f);
  --soft: var(--seawall-muted, #5b5f66);
  --line: var(--seawall-border, #d5d8dd);
  --raised: var(--seawall-surface, #f1f3f6);
  --bad: var(--seawall-error, #a3190f);
  --round: var(--seawall-radius, 14px);
  color: var(--text) !important;
}
:host([placement="left"]) {
  inset: auto auto max(16px, env(safe-area-inset-bottom)) max(16px, env(safe-area-inset-left)) !important;
}
:host([inline]) {
  position: relative !important;
  inset: auto !important;
  z-index: auto !important;
  height: var(--seawall-height, 560px) !important;
}
:host([theme="light"]) { color-scheme: light !important; }
:host([theme="dark"]) { color-scheme: dark !important; }
@media (prefers-color-scheme: dark) {
  :host(:not([theme="light"])) {
    --accent: var(--seawall-accent, #a8c7fa);
    --on-accent: var(--seawall-on-accent, #062e6f);
    --back: var(--seawall-background, #1b1c1f);
    --text: var(--seawall-text, #e8eaed);
    --soft: var(--seawall-muted, #b1b6bd);
    --line: var(--seawall-border, #474b52);
    --raised: var(--seawall-surface, #2a2c31);
    --bad: var(--seawall-error, #f8a49c);
  }
}
:host([theme="dark"]) {
  --accent: var(--seawall-accent, #a8c7fa);
  --on-accent: var(--seawall-on-accent, #062e6f);
  --back: var(--seawall-background, #1b1c1f);
  --text: var(--seawall-text, #e8eaed);
  --soft: var(--seawall-muted, #b1b6bd);
  --line: var(--seawall-border, #474b52);
  --raised: var(--seawall-surface, #2a2c31);
  --bad: var(--seawall-error, #f8a49c);
}
* { box-sizing: border-box; }
[hidden] { display: none !important; }
button, input, select, textarea { font: inherit; color: inherit; }
button {
  cursor: pointer; min-height: 36px; padding: 6px 14px; border-radius: 999px;
  border: 1px solid var(--line); background: var(--back);
}
button:disabled { cursor: default; opacity: 0.55; }
button.primary { background: var(--accent); border-color: var(--accent); color: var(--on-accent); }
button.plain { border: 0; background: none; padding: 6px; min-width: 36px; display: grid; place-items: center; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.launcher {
  display: flex; align-items: center; gap: 8px; min-height: 52px; padding: 0 20px;
  margin-inline-start: auto; background: var(--accent); color: var(--on-accent); border: 0;
  box-shadow: 0 4px 16px rgb(0 0 0 / 0.28); font-weight: 600;
}
.launcher:focus-visible { outline-color: var(--text); }
svg { width: 20px; height: 20px; fill: none; stroke: currentColor; stroke-width: 2; flex: none;
  stroke-linecap: round; stroke-linejoin: round; }
.panel {
  display: flex; flex-direction: column; overflow: hidden; background: var(--back); color: var(--text);
  width: var(--seawall-width, 390px); height: var(--seawall-height, 600px);
  max-width: calc(100vw - 32px); max-height: calc(100dvh - 32px);
  border: 1px solid var(--line); border-radius: var(--round);
  box-shadow: 0 8px 36px rgb(0 0 0 / 0.3);
}
:host([inline]) .panel { width: 100%; height: 100%; max-width: none; max-height: none; box-shadow: none; }
header {
  display: flex; align-items: center; gap: 4px; padding: 8px 8px 8px 16px;
  border-bottom: 1px solid var(--line);
}
h2 { flex: 1; margin: 0; font-size: 1.07em; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.log {
  flex: 1; overflow-y: auto; overscroll-behavior: contain; padding: 16px;
  display: flex; flex-direction: column; gap: 12px;
}
.log:focus-visible { outline-offset: -3px; }
.message { max-width: 88%; overflow-wrap: anywhere; }
.message.you {
  align-self: flex-end; background: var(--raised); padding: 8px 12px; border-radius: var(--round);
  white-space: pre-wrap;
}
.message.assistant { align-self: stretch; max-width: 100%; display: flex; flex-direction: column; gap: 8px; }
.message.person {
  align-self: flex-start; padding: 8px 12px; border: 1px solid var(--line); border-radius: var(--round);
}
.who { font-size: 0.8em; color: var(--soft); }
.text > :first-child { margin-top: 0; }
.text > :last-child { margin-bottom: 0; }
.text p, .text ul, .text ol, .text pre { margin: 0.55em 0; }
.text ul, .text ol { padding-inline-start: 1.4em; }
.text .heading { font-weight: 650; }
.text a { color: var(--accent); }
pre, code { font-family: ui-monospace, monospace; font-size: 0.92em; background: var(--raised); border-radius: 5px; }
code { padding: 0.1em 0.3em; }
pre { padding: 8px 10px; overflow-x: auto; white-space: pre-wrap; margin: 0; }
pre code { padding: 0; }
.turn { display: contents; }
.card p, .note { margin: 0; }
.note { font-size: 0.9em; color: var(--soft); }
.note.bad { color: var(--bad); }
.card {
  border: 1px solid var(--line); border-inline-start: 4px solid var(--accent); border-radius: 10px;
  padding: 10px 12px; display: flex; flex-direction: column; gap: 8px;
}
.card h3 { margin: 0; font-size: 1em; overflow-wrap: anywhere; }
.card dl { margin: 0; display: grid; grid-template-columns: fit-content(45%) 1fr; gap: 4px 12px; }
.card dt { color: var(--soft); overflow-wrap: anywhere; }
.card dd { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap; }
.row { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; }
.fields { display: flex; flex-direction: column; gap: 10px; }
.fields label { display: block; font-weight: 550; }
.fields .check { display: flex; gap: 8px; align-items: center; font-weight: 400; min-height: 30px; }
.fields fieldset { border: 1px solid var(--line); border-radius: 8px; }
.help { display: block; font-size: 0.88em; color: var(--soft); }
.error { color: var(--bad); }
.fields input:not([type="checkbox"]), select, textarea {
  width: 100%; min-height: 38px; padding: 7px 10px; background: var(--back);
  border: 1px solid var(--soft); border-radius: 8px;
}
form { display: flex; gap: 8px; align-items: flex-end; padding: 10px 12px; border-top: 1px solid var(--line); }
form textarea { flex: 1; resize: none; max-height: 140px; border-radius: 18px; padding: 8px 14px; }
.chosen { padding: 0 16px; font-size: 0.9em; overflow-wrap: anywhere; }
.status { padding: 0 16px; min-height: 0; font-size: 0.9em; color: var(--soft); }
.status:not(:empty) { padding-bottom: 6px; }
.aside { position: absolute; width: 1px; height: 1px; margin: -1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.dots::after { content: ""; display: inline-block; width: 1em; animation: dots 1.2s steps(1) infinite; }
@keyframes dots { 0% { content: ""; } 33% { content: "·"; } 66% { content: "··"; } }
@media (prefers-reduced-motion: reduce) { .dots::after { animation: none; } }
@media (max-width: 480px) {
  :host([open]:not([inline])) { inset: 0 !important; }
  :host([open]:not([inline])) .panel {
    width: 100vw; height: 100dvh; max-width: none; max-height: none; border: 0; border-radius: 0;
  }
  form textarea, .fields input, select { font-size: 16px; }
}
`;
