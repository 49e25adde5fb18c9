// The turns API over fetch: credentials, turns that survive a lost connection, decisions, sessions.
import { EventReader } from "./events.js";

const FIRST_PAUSE = 500; // milliseconds, as all times here
const MAX_PAUSE = 8000;
const GIVE_UP = 180000;
const SILENCE = 45000; // a connection without a sign of life is made again
const EARLY = 30000; // a token is fetched again before it expires
const MAX_REFUSALS = 6;
const PASSING = new Set([
  "overloaded", "server-stopping", "turn-postponed", "store-unavailable", "commit-unknown",
  "session-busy", "identity-unavailable",
]);

/** What the server has refused, or what became of the connection; `problem` is as RFC 9457. */
export class ApiError extends Error {
  constructor(problem) {
    super(problem.detail ?? problem.code);
    this.problem = problem;
  }
}

/** Calls the API of one server as one user. */
export class Client {
  #token = "";
  #expires = 0;
  #fetching = null;

  /**
   * server: URL without a path. getToken: async, returns a token or {token, expires_in in seconds};
   * null for a server that needs none. The token is kept in memory only. headers and credentials
   * are those of each request.
   */
  constructor(server, getToken = null, { headers = {}, credentials = "omit" } = {}) {
    this.server = server.replace(/\/+$/, "");
    this.getToken = getToken;
    this.headers = headers;
    this.credentials = credentials;
  }

  /** Whose the token is, as far as it says so: the subject of a JSON web token. */
  async who() {
    await this.#credential(false);
    return subjectOf(this.#token);
  }

  /** A response with status 2xx; anything else is an ApiError. */
  async request(method, path, { body, form, headers = {}, signal } = {}) {
    for (let fresh = false; ; fresh = true) {
      const response = await fetch(this.server + path, {
        method,
        signal,
        cache: "no-store",
        credentials: this.credentials,
        referrerPolicy: "no-referrer",
        headers: { ...this.headers, ...headers, ...(await this.#credential(fresh)) },
        body: form ?? (body === undefined ? undefined : JSON.stringify(body)),
      });
      if (response.ok) return response;
      if (response.status === 401 && this.getToken && !fresh) continue;
      throw new ApiError(await problemOf(response));
    }
  }

  async json(method, path, options) {
    const response = await this.request(method, path, options);
    return response.status === 204 ? null : response.json();
  }

  /**
   * Run or follow a turn until it ends or pauses; a lost connection is made again.
   *
   * request: {key, text, session, agent, attachments}, the same whenever it is made again. state: a TurnState;
   * one whose turn is known continues after its position.
   * changed(connection): after every change; connection is "open", "lost" or "waiting".
   */
  async follow(request, state, { signal, changed = () => {} } = {}) {
    let pause = FIRST_PAUSE;
    let refusals = 0;
    let contact = Date.now();
    for (;;) {
      try {
        const before = state.position;
        await this.#stream(request, state, signal, () => {
          contact = Date.now();
          changed("open");
        });
        if (state.ended) return;
        if (state.position > before) pause = FIRST_PAUSE;
      } catch (error) {
        if (signal?.aborted) throw error;
        const problem = error.problem;
        if (problem?.code === "turn-not-found" && state.turn && request.key) {
          if (++refusals > MAX_REFUSALS) throw error;
          state.reset(); // it ended without an answer: the same key runs it, or returns it
          continue;
        }
        if (problem) {
          if (!PASSING.has(problem.code) || ++refusals > MAX_REFUSALS) throw error;
          pause = Math.max(pause, (problem.retry_after ?? 1) * 1000);
          contact = Date.now();
        } else if (Date.now() - contact > GIVE_UP) {
          throw new ApiError({ code: "connection-lost", detail: String(error) });
        }
        changed(problem ? "waiting" : "lost");
      }
      await sleep(pause * (0.75 + Math.random() / 2), signal);
      pause = Math.min(pause * 2, MAX_PAUSE);
    }
  }

  /** One connection; returns when the stream ends, whether or not the turn has. */
  async #stream(request, state, signal, changed) {
    const cut = new AbortController();
    const stop = () => cut.abort();
    signal?.addEventListener("abort", stop);
    if (signal?.aborted) stop();
    let timer = setTimeout(stop, SILENCE);
    try {
      const response = state.turn
        ? await this.request("GET", eventsPath(state.turn), {
            headers: { "last-event-id": String(state.position) },
            signal: cut.signal,
          })
        : await this.request("POST", "/v1/turns", {
            headers: { "idempotency-key": request.key },
            body: {
              text: request.text, session: request.session || null, agent: request.agent || null,
              stream: true, background: true,
              ...(request.attachments?.length && { attachments: request.attachments }),
            },
            signal: cut.signal,
          });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const events = new EventReader();
      state.status = "running";
      for (;;) {
        const { value, done } = await reader.read();
        clearTimeout(timer);
        if (done) break;
        timer = setTimeout(stop, SILENCE);
        for (const [position, event] of events.read(value)) state.take(position, event);
        changed();
      }
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
    }
  }

  /**
   * What has happened to a turn since it paused; true if anything has.
   *
   * One connection, which the server ends at once while the turn still waits.
   */
  async poll(state, { signal, changed = () => {} } = {}) {
    const { position, status } = state;
    try {
      await this.#stream({}, state, signal, () => changed("open"));
    } finally {
      if (state.position === position) state.status = status;
    }
    return state.position > position;
  }

  /** End a turn. Only the process that runs it can, and there may be several: some are asked. */
  async cancel(turn) {
    for (let round = 0; round < 3; round++) {
      const asked = Array.from({ length: round ? 4 : 1 }, () =>
        this.request("POST", `/v1/turns/${encodeURIComponent(turn)}/cancel`));
      const answers = await Promise.allSettled(asked);
      if (answers.some((each) => each.status === "fulfilled")) return true;
      const other = answers.find((each) => each.reason?.problem?.code !== "turn-not-found");
      if (other) throw other.reason;
    }
    return false;
  }

  decide(turn, call, body) {
    const path = `/v1/turns/${encodeURIComponent(turn)}/approvals/${encodeURIComponent(call)}`;
    return this.json("POST", path, { body });
  }

  /** Store a file, for a message of the next hour; what goes into its `attachments`. */
  async upload(file) {
    const form = new FormData();
    form.append("purpose", "user_data");
    form.append("file", file);
    return { file: (await this.json("POST", "/v1/files", { form })).id };
  }

  /** A session with its newest turns, newest first. */
  session(id, limit = 30) {
    return this.json("GET", `/v1/sessions/${encodeURIComponent(id)}?limit=${limit}`);
  }

  async #credential(fresh) {
    if (!this.getToken) return {};
    if (fresh || !this.#token || Date.now() > this.#expires) {
      this.#fetching ??= this.#fetchToken().finally(() => {
        this.#fetching = null;
      });
      await this.#fetching;
    }
    return { authorization: `Bearer ${this.#token}` };
  }

  async #fetchToken() {
    let answer;
    try {
      answer = await this.getToken();
    } catch (error) {
      throw error.problem || error.name === "AbortError" || error instanceof TypeError
        ? error
        : new ApiError({ code: "no-token", detail: String(error) });
    }
    const given = typeof answer === "string" ? { token: answer } : answer ?? {};
    const { token, expires_in: seconds } = given;
    if (!token) throw new ApiError({ code: "no-token", detail: "The page gave no token." });
    this.#token = token;
    this.#expires = seconds ? Date.now() + Math.max(seconds * 500, seconds * 1000 - EARLY) : Infinity;
  }
}

/** A function that fetches tokens from an address of the page's own server. */
export function tokenFrom(url) {
  return async () => {
    const response = await fetch(url, {
      headers: { accept: "application/json" },
      credentials: "same-origin",
      cache: "no-store",
    });
    if (!response.ok) {
      const code = response.status >= 500 ? "identity-unavailable" : "no-token";
      throw new ApiError({ code, status: response.status });
    }
    return response.json();
  };
}

export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (each) => each.toString(16).padStart(2, "0")).join("");
}

/** Resolves after some milliseconds, or when the browser is online again; rejects if aborted. */
export function sleep(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const end = (settle) => () => {
      clearTimeout(timer);
      removeEventListener("online", done);
      signal?.removeEventListener("abort", aborted);
      settle();
    };
    const done = end(resolve);
    const aborted = end(() => reject(signal.reason));
    const timer = setTimeout(done, milliseconds);
    addEventListener("online", done);
    if (signal?.aborted) aborted();
    else signal?.addEventListener("abort", aborted);
  });
}

function subjectOf(token) {
  try {
    const payload = token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
    return String(JSON.parse(atob(payload)).sub ?? "");
  } catch {
    return ""; // an opaque one
  }
}

function eventsPath(turn) {
  return `/v1/turns/${encodeURIComponent(turn)}/events`;
}

async function problemOf(response) {
  const fallback = { status: response.status, code: "" };
  try {
    const problem = await response.json();
    return problem && typeof problem === "object" ? { ...fallback, ...problem } : fallback;
  } catch {
    return fallback;
  }
}
