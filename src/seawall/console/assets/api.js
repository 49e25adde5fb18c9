// Requests to the server, as the person who is logged in.
//
// Paths: "/v1/..." are those of the API (docs/http-api.md); all others are below /console/api.

const root = new URL("../api/", import.meta.url);

export const me = {};

export class Problem extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `The server answered with status ${status}.`);
    this.status = status;
    this.code = problem.code || "";
    this.problem = problem;
  }
}

export function address(path, query = {}) {
  const url = new URL(path.replace(/^\//, ""), root);
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== "") url.searchParams.set(name, value);
  }
  return url;
}

// The response; a Problem is thrown unless the request succeeded.
export async function request(path, { method = "GET", query, body, headers = {}, signal } = {}) {
  const sent = { ...headers };
  if (method !== "GET") sent["x-console-token"] = me.token || "";
  if (body !== undefined) sent["content-type"] = "application/json";
  const response = await fetch(address(path, query), {
    method, signal, headers: sent, credentials: "same-origin", cache: "no-store",
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    throw new Problem(response.status, problem);
  }
  return response;
}

export async function get(path, query, signal) {
  return (await request(path, { query, signal })).json();
}

export async function post(path, body, headers) {
  const response = await request(path, { method: "POST", body: body ?? {}, headers });
  return response.status === 204 ? null : response.json();
}

// The events of a response with a stream of server-sent events, as { event, id, data }.
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      rest += value;
      let end;
      while ((end = rest.indexOf("\n\n")) >= 0) {
        const frame = { event: "message", id: "", data: "" };
        for (const line of rest.slice(0, end).split("\n")) {
          const colon = line.indexOf(":");
          if (colon > 0) frame[line.slice(0, colon)] = line.slice(colon + 1).replace(/^ /, "");
        }
        rest = rest.slice(end + 2);
        if (frame.data) yield { ...frame, data: JSON.parse(frame.data) };
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// Who is logged in: fills `me`.
export async function identify() {
  const answer = await get("me");
  for (const name of Object.keys(me)) delete me[name];
  Object.assign(me, answer);
  return me;
}

export function may(permission) {
  return (me.permissions || []).includes(permission);
}
