/** Numbers, sizes and times as people read them. */

export function count(value: number): string {
  if (value >= 1e9) return `${(value / 1e9).toFixed(1)}B`;
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)}M`;
  if (value >= 1e4) return `${(value / 1e3).toFixed(1)}k`;
  return Math.round(value).toLocaleString("en");
}

export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60)];
  if (hours > 0) return `${hours} h ${minutes} min`;
  if (minutes > 0) return `${minutes} min ${whole % 60} s`;
  return `${whole} s`;
}

export function ago(unixSeconds: number): string {
  const seconds = Date.now() / 1000 - unixSeconds;
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  return new Date(unixSeconds * 1000).toLocaleDateString("en", { day: "numeric", month: "short", year: "numeric" });
}

export function size(bytes: number): string {
  if (bytes >= 1e9) return `${(bytes / 1e9).toFixed(1)} GB`;
  if (bytes >= 1e6) return `${(bytes / 1e6).toFixed(1)} MB`;
  return `${Math.ceil(bytes / 1e3)} kB`;
}

/** A metric by its name: ratios and accuracies in per cent, the rest with enough digits to tell steps apart. */
export function metric(name: string, value: number): string {
  if (/(_accuracy|_ratio)$/.test(name)) return `${(value * 100).toFixed(1)}%`;
  if (Number.isInteger(value) && Math.abs(value) >= 10) return count(value);
  return Math.abs(value) >= 100 ? count(value) : value.toPrecision(4).replace(/\.?0+$/, "");
}

export function metricName(name: string): string {
  return name.replace(/_/g, " ");
}
