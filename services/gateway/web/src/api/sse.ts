/** Server-sent events over fetch, which unlike EventSource can send the key and a body. */

export interface ServerEvent {
  event: string;
  data: string;
  id: string | null;
}

/**
 * The events of a response, as they arrive. One decoder reads the whole stream, so a character that is split
 * between two network chunks comes out whole. Leaving the loop early closes the connection.
 */
export async function* readEvents(response: Response): AsyncGenerator<ServerEvent> {
  if (!response.body) return;
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let buffer = "";
  let event = blank();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      buffer += decoder.decode(value, { stream: !done });
      // A carriage return at the very end may be the first half of CRLF: it waits for the next chunk.
      const lines = buffer.split(/\r\n|\n|\r(?!$)/);
      buffer = lines.pop() ?? "";
      for (const line of lines) {
        if (line === "") {
          if (event.data !== "") yield { ...event, data: event.data.slice(0, -1) };
          event = blank();
        } else {
          takeField(event, line);
        }
      }
      if (done) return;
    }
  } finally {
    void reader.cancel().catch(() => undefined);
  }
}

function blank(): ServerEvent {
  return { event: "message", data: "", id: null };
}

function takeField(event: ServerEvent, line: string): void {
  const colon = line.indexOf(":");
  if (colon === 0) return; // a comment: the server's keep-alive
  const name = colon < 0 ? line : line.slice(0, colon);
  const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
  if (name === "data") event.data += value + "\n";
  else if (name === "event") event.event = value;
  else if (name === "id") event.id = value;
}
