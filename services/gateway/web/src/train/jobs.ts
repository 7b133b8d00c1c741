/** The jobs as last heard of, and how they belong together. */
import { computed, signal } from "@preact/signals";
import { toApiError, type ApiError } from "../api/errors";
import { listJobs } from "../api/jobs";
import type { Job } from "../api/types";

const NUM_LISTED = 100;
/** The most that the server lists at once. */
const MAX_LISTED = 500;

export const jobs = signal<Job[] | null>(null);
export const jobsError = signal<ApiError | null>(null);
/** Whether there are older ones that can be asked for. */
export const hasOlder = signal(false);

let numListed = NUM_LISTED;

/** Jobs that no pipeline started, newest first. */
export const topJobs = computed(() =>
  (jobs.value ?? []).filter((job) => job.parent_id === null).sort((a, b) => b.created_at - a.created_at),
);

export async function refreshJobs(): Promise<void> {
  try {
    const page = await listJobs({ limit: String(numListed) });
    jobs.value = page.data;
    hasOlder.value = page.has_more === true && numListed < MAX_LISTED;
    jobsError.value = null;
  } catch (cause) {
    jobsError.value = toApiError(cause);
  }
}

export function showOlder(): Promise<void> {
  numListed = MAX_LISTED;
  return refreshJobs();
}

/** A pipeline's stages in order; empty for any other job. */
export function stagesOf(pipeline: Job, all: readonly Job[]): Job[] {
  const children = all.filter((job) => job.parent_id === pipeline.id);
  const place = (job: Job): number => {
    const index = pipeline.stages.indexOf(job.id);
    return index < 0 ? job.created_at : index;
  };
  return children.sort((a, b) => place(a) - place(b));
}

/** A stage as its profile names it: one with a name of its own is the job <pipeline>-<name>, any other goes by its kind. */
export function stageName(stage: Job, pipeline: Job): string {
  const prefix = `${pipeline.name}-`;
  return stage.name.startsWith(prefix) ? stage.name.slice(prefix.length) : stage.kind;
}

/** The stage to look at: the one running, else the one that failed, else the last that did anything. */
export function currentStage(stages: readonly Job[]): Job | undefined {
  return (
    stages.find((job) => job.status === "running") ??
    stages.find((job) => job.status === "failed") ??
    stages.findLast((job) => job.status === "succeeded") ??
    stages[0]
  );
}

/** What a pipeline made: the checkpoint to talk to. */
export function madeCheckpoint(pipeline: Job, stages: readonly Job[]): string | null {
  return pipeline.checkpoint ?? stages.findLast((job) => job.checkpoint !== null)?.checkpoint ?? null;
}
