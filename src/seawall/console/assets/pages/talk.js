import { html } from "../view.js";

export default function Page() {
  return html`<h1>Talk</h1>`;
}
