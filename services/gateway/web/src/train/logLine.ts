/** A line of a job's log as people read it. Our own are JSON objects; a library's plain text stays as it is. */

const SHOWN_ELSEWHERE = new Set(["time", "level", "event", "service", "logger", "job_id"]);

/** "17:49:12 step loss=2.31 lr=0.02", the time as this browser's clock has it. */
export function readable(line: string): string {
  if (!line.startsWith("{")) return line;
  try {
    const { time, level, event, ...rest } = JSON.parse(line) as Record<string, unknown>;
    const at = new Date(String(time));
    if (Number.isNaN(at.getTime()) || typeof event !== "string") return line;
    const fields = Object.entries(rest)
      .filter(([name]) => !SHOWN_ELSEWHERE.has(name))
      .map(([name, value]) => `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`);
    const importance = level === "info" ? [] : [String(level).toUpperCase()];
    return [at.toLocaleTimeString("en-GB"), ...importance, event, ...fields].join(" ");
  } catch {
    return line;
  }
}
