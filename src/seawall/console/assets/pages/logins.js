// Who is logged in to the console: one's own logins, for operators all; each can be ended.
import { html, useEffect, useState } from "../view.js";
import { get, may, me, post } from "../api.js";
import { time } from "../format.js";

export default function Logins() {
  const [found, setFound] = useState(null);
  const [fault, setFault] = useState("");
  const [said, setSaid] = useState("");
  const load = () => get("logins").then(setFound, (error) => setFault(error.message));
  useEffect(() => { load(); }, []);
  const take = async (path, body, words, leaves) => {
    setFault("");
    try {
      await post(path, body);
      if (leaves) return window.location.reload(); // so that nothing is left for who logs in next
      setSaid(words);
    } catch (error) {
      setFault(error.message);
    }
    return load();
  };
  const end = (each) => take(`logins/${encodeURIComponent(each.id)}/end`, {}, `A login of ${each.subject} has ended.`, each.this);
  const everywhere = () => take("logins/end", { tenant: me.tenant, subject: me.subject }, "Your logins have ended.", me.by === "cookie");
  const others = (event) => {
    event.preventDefault();
    const form = new FormData(event.target);
    const body = { tenant: form.get("tenant").trim(), subject: form.get("subject").trim() };
    const own = body.tenant === me.tenant && body.subject === me.subject;
    take("logins/end", body, `All logins of ${body.subject} of ${body.tenant} have ended.`, own && me.by === "cookie");
  };
  return html`
    <h1>Logins</h1>
    <p class="soft">${may("operate") ? "Logins to the console that this server has seen since it started, used last first." : "Your logins to the console that this server has seen since it started."}</p>
    ${fault && html`<p class="notice bad" role="alert">${fault}</p>`}
    <p role="status" class=${said ? "notice" : ""}>${said}</p>
    ${found && html`
      <div class="panel scroll" tabindex="0" role="region" aria-label="Logins"><table class="rows">
        <thead><tr><th>Who</th><th>End</th><th>Since</th><th>Used</th><th>Until</th></tr></thead>
        <tbody>${found.logins.map((each) => html`<tr key=${each.id}>
          <td class="clipped" title=${`${each.subject} of ${each.tenant}, from ${each.address} ${each.agent}`}>${each.this && html`<span class="tag good">this one</span> `}${each.subject} of ${each.tenant}
            <small class="soft">${each.address} ${each.agent}</small></td>
          <td><button onClick=${() => end(each)} aria-label=${`End the login of ${each.subject}, since ${time(each.began_at)}`}>End</button></td>
          <td class="mono">${time(each.began_at)}</td><td class="mono">${time(each.seen_at)}</td><td class="mono">${time(each.expires_at)}</td></tr>`)}</tbody>
      </table></div>
      ${found.more && html`<p class="soft">There are more than these.</p>`}
      <p><button class="danger" onClick=${everywhere}>Log out everywhere</button></p>
      ${may("operate") && html`<h2>All logins of a person</h2>
        <form class="search" onSubmit=${others}>
          <label>Tenant<input name="tenant" required maxlength="256" /></label>
          <label>Subject<input name="subject" required maxlength="256" /></label>
          <button class="danger">End them</button>
        </form>`}`}`;
}
