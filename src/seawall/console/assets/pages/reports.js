// Reports of `seawall plan` and `seawall surge`, each in a sandbox.
import { html, useEffect, useState } from "../view.js";
import { get } from "../api.js";
import { count, time } from "../format.js";
import { link } from "../links.js";

// As text: Preact sets an attribute anew, and a frame then loads again, when its value is another object.
const address = (name) => String(new URL(`../../reports/${encodeURIComponent(name)}`, import.meta.url));

export function ReportFrame({ name }) {
  return html`<p><a href="#/reports">All reports</a> <a href=${address(name)} target="_blank" rel="noopener">on a page of its own</a></p>
    <iframe class="report" title=${name} src=${address(name)} sandbox="allow-scripts"></iframe>`;
}

export default function Reports({ path }) {
  const [found, setFound] = useState(null);
  const [fault, setFault] = useState("");
  useEffect(() => { get("reports").then(setFound, (error) => setFault(error.message)); }, []);
  if (path[0]) {
    return html`<h1>Report</h1><${ReportFrame} name=${path[0]} />`;
  }
  return html`
    <h1>Reports</h1>
    ${fault && html`<p class="notice bad" role="alert">${fault}</p>`}
    ${found && !found.configured && html`<p class="notice">No folder is configured: set <code>reports</code> in <code>[console]</code>, and have <code>seawall plan --html</code> or <code>seawall surge --html</code> write there.</p>`}
    ${found && found.configured && found.reports.length === 0 && html`<p class="notice">The folder has no reports yet.</p>`}
    ${found && found.reports.length > 0 && html`<div class="panel scroll" tabindex="0" role="region" aria-label="Reports"><table>
      <thead><tr><th>Report</th><th>Written</th><th class="number">KiB</th></tr></thead>
      <tbody>${found.reports.map((each) => html`<tr key=${each.name}><td><a href=${link("reports", [each.name])}>${each.name}</a></td><td>${time(each.written_at)}</td><td class="number">${count(each.bytes / 1024)}</td></tr>`)}</tbody>
    </table></div>`}`;
}
