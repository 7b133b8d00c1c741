/** The page about a run: in a tab of its own, or as a file where a key is needed, which a new tab could not send. */
import { request } from "./client";
import { currentKey } from "./key";
import type { Job } from "./types";

/** The run that a job trains or tells of; a pipeline's bears its name. Null for a job of no run. */
export function runOf(job: Job): string | null {
  if (job.kind === "pipeline") return job.name;
  return typeof job.config.run === "string" ? job.config.run : null;
}

/** Throws ApiError, naming the runs there are where this is none. */
export async function openReport(run: string): Promise<void> {
  const path = `/v1/reports/${encodeURIComponent(run)}`;
  const response = await request(path);
  if (currentKey() === null) {
    window.open(path, "_blank", "noopener");
    return;
  }
  const url = URL.createObjectURL(await response.blob());
  const link = document.createElement("a");
  link.href = url;
  link.download = `${run}.html`;
  link.click();
  URL.revokeObjectURL(url);
}
