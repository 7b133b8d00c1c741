/** What goes wrong with a request, and what a person can do about it. */

export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly code: string,
  ) {
    super(message);
  }
}

/** The API's error envelope, or the best guess where a proxy answered instead. */
export async function errorFrom(response: Response): Promise<ApiError> {
  const text = await response.text().catch(() => "");
  try {
    const { error } = JSON.parse(text) as { error: { message: string; code: string | null; type?: string } };
    return new ApiError(error.message, response.status, error.code ?? error.type ?? "error");
  } catch {
    return new ApiError(`The server answered ${response.status} ${response.statusText}.`, response.status, "error");
  }
}

/** Any thrown value as an ApiError; fetch's own failures become "unreachable". */
export function toApiError(cause: unknown): ApiError {
  if (cause instanceof ApiError) return cause;
  if (cause instanceof TypeError) return new ApiError("The server does not answer.", 0, "unreachable");
  return new ApiError(cause instanceof Error ? cause.message : String(cause), 0, "error");
}

export function isAbort(cause: unknown): boolean {
  return cause instanceof DOMException && cause.name === "AbortError";
}

/** One sentence on what to do, or nothing where the message says it already. */
export function adviceFor(error: { status: number; code: string }): string {
  if (error.code === "unreachable") return "Check that the stack is up (make up) and that this machine is online, then retry.";
  if (error.code === "interrupted") return "What arrived is kept. Retry to ask again.";
  switch (error.status) {
    case 429:
      return "Wait a moment, then retry.";
    case 503:
      return "The server is busy or starting. Wait a moment, then retry.";
    case 504:
      return "The server took too long. Retry, or ask for a shorter answer.";
    default:
      return "";
  }
}
