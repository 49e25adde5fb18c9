// The shell of the console: who is logged in, navigation, and the page that the address names.
import { html, render, useEffect, useState } from "./view.js";
import { link, readAddress } from "./links.js";
import { identify, may, me, post } from "./api.js";
import { Login } from "./login.js";

// A page is a module pages/NAME.js whose default export is a component; it gets `path` (the parts
// of the address after its name) and `query`.
const pages = [
  { name: "now", title: "Now", permission: "look" },
  { name: "turns", title: "Turns", permission: "look" },
  { name: "sessions", title: "Sessions", permission: "look" },
  { name: "decide", title: "Decide", permission: "look" },
  { name: "talk", title: "Talk", permission: "look" },
  { name: "surge", title: "Surge", permission: "look", shown: () => me.surge },
  { name: "reports", title: "Reports", permission: "look" },
  { name: "logins", title: "Logins", permission: "look", shown: () => me.by !== "anonymous" },
];

export { link };

const location_ = () => readAddress(window.location.hash);

function Page({ at }) {
  const [loaded, setLoaded] = useState({});
  const page = pages.find((each) => each.name === at.name);
  useEffect(() => {
    document.title = `${page ? page.title : "Not found"} - Seawall console`;
    if (!page) return;
    let current = true;
    import(`./pages/${page.name}.js`).then(
      (module) => current && setLoaded({ name: page.name, Component: module.default }),
      (error) => current && setLoaded({ name: page.name, error }),
    );
    return () => { current = false; };
  }, [at.name]);
  if (!page) return html`<h1>Not found</h1><p>There is no page ${at.name}.</p>`;
  if (!may(page.permission)) {
    return html`<h1>${page.title}</h1><p class="notice">This needs the permission ${page.permission}.</p>`;
  }
  if (loaded.name !== page.name) return html`<p class="loading">Loading ...</p>`;
  if (loaded.error) return html`<p class="notice bad" role="alert">${String(loaded.error)}</p>`;
  return html`<${loaded.Component} key=${page.name} path=${at.path} query=${at.query} />`;
}

function Shell() {
  const [at, setAt] = useState(location_());
  const [known, setKnown] = useState(null);
  const [failed, setFailed] = useState("");
  const refresh = () => identify().then((who) => { setKnown({ ...who }); setFailed(""); },
    (error) => setFailed(error.message));
  useEffect(() => {
    refresh();
    const moved = () => {
      setAt(location_());
      document.getElementById("main")?.focus({ preventScroll: true });
      window.scrollTo(0, 0);
    };
    window.addEventListener("hashchange", moved);
    return () => window.removeEventListener("hashchange", moved);
  }, []);
  if (failed) return html`<main><p class="notice bad" role="alert">${failed}</p></main>`;
  if (!known) return html`<p class="loading">Loading ...</p>`;
  if (!known.permissions) return html`<${Login} known=${known} done=${refresh} />`;
  const leave = async () => {
    await post("logout");
    window.location.reload(); // so that nothing is left for who logs in next
  };
  return html`
    <a class="skip" href="#main" onClick=${(event) => {
      event.preventDefault(); document.getElementById("main").focus();
    }}>Skip to the content</a>
    <header class="bar">
      <a class="brand" href="#/now"><img src=${new URL("icon.svg", import.meta.url)} alt="" width="24" height="24" />Seawall</a>
      <nav aria-label="Pages">
        ${pages.filter((each) => may(each.permission) && (!each.shown || each.shown())).map((each) => html`
          <a href=${`#/${each.name}`} aria-current=${each.name === at.name ? "page" : undefined}>${each.title}</a>`)}
      </nav>
      <span class="who">${me.by === "anonymous" ? "this machine" : `${me.subject} of ${me.tenant}`}
        ${me.by === "cookie" && html`<button class="plain" onClick=${leave}>Log out</button>`}
      </span>
    </header>
    <main id="main" tabindex="-1"><${Page} at=${at} /></main>`;
}

document.getElementById("app").textContent = "";
render(html`<${Shell} />`, document.getElementById("app"));
