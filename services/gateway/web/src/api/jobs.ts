/** The training API: jobs, their curves and their live events. */
import { getJson, postJson, request } from "./client";
import { readEvents, type ServerEvent } from "./sse";
import type { Job, Page, Series } from "./types";
import { newId } from "../ui/ids";

export interface JobSpec {
  kind: string;
  name?: string;
  config: Record<string, unknown>;
  [key: string]: unknown;
}

export async function listJobs(query: Record<string, string> = {}): Promise<Page<Job>> {
  return getJson<Page<Job>>(`/v1/jobs?${new URLSearchParams(query)}`);
}

export async function getJob(id: string): Promise<Job> {
  return getJson<Job>(`/v1/jobs/${encodeURIComponent(id)}`);
}

/** Submit a job. The idempotency key makes a repeated click or a retried request start it once. */
export async function submitJob(spec: JobSpec, idempotencyKey = newId()): Promise<Job> {
  return postJson<Job>("/v1/jobs", spec, { "Idempotency-Key": idempotencyKey });
}

export function startDemo(): Promise<Job> {
  return submitJob({ kind: "pipeline", config: { profile: "demo" } });
}

export async function cancelJob(id: string): Promise<Job> {
  return postJson<Job>(`/v1/jobs/${encodeURIComponent(id)}/cancel`);
}

export async function retryJob(id: string): Promise<Job> {
  return postJson<Job>(`/v1/jobs/${encodeURIComponent(id)}/retry`);
}

export async function getSeries(id: string): Promise<Series> {
  return (await getJson<{ series: Series }>(`/v1/jobs/${encodeURIComponent(id)}/metrics`)).series;
}

/** Live events of a job: status, progress, metric, log. `lastId` takes up where an earlier stream ended. */
export async function* jobEvents(id: string, lastId: string | null, signal: AbortSignal): AsyncGenerator<ServerEvent> {
  const headers: Record<string, string> = lastId === null ? {} : { "Last-Event-ID": lastId };
  yield* readEvents(await request(`/v1/jobs/${encodeURIComponent(id)}/events`, { headers, signal }));
}

export function isFinal(job: Job): boolean {
  return job.status === "succeeded" || job.status === "failed" || job.status === "cancelled";
}
