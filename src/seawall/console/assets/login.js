// The login: with a key or token of this server, or with its issuer.
import { html, useState } from "./view.js";
import { address, post } from "./api.js";

export function Login({ known, done }) {
  const [fault, setFault] = useState("");
  const [busy, setBusy] = useState(false);
  const enter = async (event) => {
    event.preventDefault();
    setBusy(true);
    setFault("");
    try {
      const form = new FormData(event.target);
      await post("login", { credential: String(form.get("credential")).trim() });
      await done();
    } catch (error) {
      setFault(error.message);
    } finally {
      setBusy(false);
    }
  };
  return html`
    <main class="login" id="main">
      <h1>Seawall console</h1>
      ${known.login.issuer && html`<p><a class="button primary" href=${address("login/issuer")}>Log in</a></p>`}
      <form onSubmit=${enter}>
        <label>API key or token
          <input name="credential" type="password" autocomplete="off" required maxlength="8192" />
        </label>
        <button class="primary" disabled=${busy}>Log in with it</button>
      </form>
      ${fault && html`<p class="notice bad" role="alert">${fault}</p>`}
    </main>`;
}
