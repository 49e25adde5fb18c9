// Addresses of pages within the console: "#/turns/ID?tenant=acme".
export function link(name, path = [], query = {}) {
  const parts = [name, ...path].map(encodeURIComponent).join("/");
  const given = Object.entries(query).filter(([, value]) => value !== "" && value != null);
  const words = new URLSearchParams(given).toString();
  return `#/${parts}${words ? `?${words}` : ""}`;
}

export function readAddress(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [name = "", ...rest] = path.split("/").map((part) => {
    try { return decodeURIComponent(part); } catch { return part; }
  });
  return { name: name || "now", path: rest, query: Object.fromEntries(new URLSearchParams(query)) };
}
