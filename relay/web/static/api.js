// Requests to the relay's API. Each has a deadline, and ends early when its signal is aborted.

const WITHIN_MS = 15_000;

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// The answer's document, and its headers.
export async function ask(path, { method = "GET", body, signal, withinMs = WITHIN_MS } = {}) {
  const deadline = AbortSignal.timeout(withinMs);
  const options = { method, cache: "no-store", signal: signal ? AbortSignal.any([signal, deadline]) : deadline };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers = { "Content-Type": "application/json" };
  }
  const answer = await fetch(path, options).catch((error) => {
    if (signal && signal.aborted) throw error;
    throw new ApiError(0, deadline.aborted ? `no answer within ${withinMs / 1000} s` : "the relay can't be reached");
  });
  if (answer.ok) return { document: await answer.json(), headers: answer.headers };
  throw new ApiError(answer.status, await reason(answer));
}

export const get = async (path, options) => (await ask(path, options)).document;
export const post = async (path, body, options) => (await ask(path, { ...options, method: "POST", body })).document;
export const remove = async (path, options) => (await ask(path, { ...options, method: "DELETE" })).document;

// A request that was given up because the reader went elsewhere is no error.
export const wasAborted = (error) => error.name === "AbortError";

// A path with those of the parameters that have a value.
export function withQuery(path, given) {
  const query = new URLSearchParams(Object.entries(given).filter(([, value]) => value));
  return query.size ? `${path}?${query}` : path;
}

async function reason(answer) {
  const document = await answer.json().catch(() => ({}));
  if (typeof document.error === "string") return document.error;
  if (document.error && document.error.message) return document.error.message;
  return answer.status === 401 ? "the relay asks for its token: load the page again" : `HTTP ${answer.status}`;
}
