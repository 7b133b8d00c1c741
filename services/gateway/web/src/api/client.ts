/** Requests to this page's own server: adds the key, asks for one on 401, turns every failure into an ApiError. */
import { errorFrom, isAbort, toApiError } from "./errors";
import { askForKey, currentKey } from "./key";

/** fetch that resolves only with a good answer. Throws ApiError, or the AbortError of its own signal. */
export async function request(path: string, init: RequestInit = {}): Promise<Response> {
  for (;;) {
    const key = currentKey();
    const response = await send(path, init, key);
    if (response.ok) return response;
    const error = await errorFrom(response);
    if (response.status !== 401) throw error;
    // Another request may have brought a new key while this one was on its way.
    if (currentKey() === key && !(await askForKey())) throw error;
  }
}

export async function getJson<T>(path: string, signal?: AbortSignal): Promise<T> {
  const response = await request(path, signal ? { signal } : {});
  return (await response.json()) as T;
}

export async function postJson<T>(path: string, body: unknown = {}, headers: Record<string, string> = {}): Promise<T> {
  const response = await request(path, jsonBody(body, headers));
  return (await response.json()) as T;
}

export function jsonBody(body: unknown, headers: Record<string, string> = {}): RequestInit {
  return { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json", ...headers } };
}

async function send(path: string, init: RequestInit, key: string | null): Promise<Response> {
  const headers = new Headers(init.headers);
  if (key) headers.set("Authorization", `Bearer ${key}`);
  try {
    return await fetch(path, { ...init, headers, credentials: "same-origin" });
  } catch (cause) {
    throw isAbort(cause) ? cause : toApiError(cause);
  }
}
