/** Cuts a message's content at its calculator calls. Offsets count code points, so emoji do not shift them. */
import type { ToolCall } from "../api/types";

export type Segment = { type: "text"; text: string } | { type: "call"; call: ToolCall };

/** Text and calls in order. A call whose span lies outside the content, or over an earlier call, stays text. */
export function segmentsOf(content: string, calls: readonly ToolCall[]): Segment[] {
  if (calls.length === 0) return content === "" ? [] : [{ type: "text", text: content }];
  const points = Array.from(content);
  const segments: Segment[] = [];
  let at = 0;
  const pushText = (end: number): void => {
    if (end > at) segments.push({ type: "text", text: points.slice(at, end).join("") });
  };
  for (const call of [...calls].sort((a, b) => a.start - b.start)) {
    if (call.start < at || call.end > points.length || call.end <= call.start) continue;
    pushText(call.start);
    segments.push({ type: "call", call });
    // The line break after a span belongs to it.
    at = points[call.end] === "\n" ? call.end + 1 : call.end;
  }
  pushText(points.length);
  return segments;
}

/** Calls by their place; a stream may repeat earlier ones in its last chunk. */
export function mergeCalls(known: readonly ToolCall[], arrived: readonly ToolCall[]): ToolCall[] {
  const byStart = new Map([...known, ...arrived].map((call) => [call.start, call]));
  return [...byStart.values()].sort((a, b) => a.start - b.start);
}
