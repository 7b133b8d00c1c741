/** How far a job is: a bar, and the few numbers one looks for. */
import type { Job, JobStatus } from "../api/types";
import { count, duration, metric } from "../ui/format";

export function ProgressBar({ ratio, status, label }: { ratio: number; status: JobStatus; label: string }) {
  const percent = Math.round((status === "succeeded" ? 1 : ratio) * 100);
  return <progress class={`progress is-${status}`} max={100} value={percent} aria-label={label} />;
}

export function StatusBadge({ status }: { status: JobStatus }) {
  return (
    <span class={`status is-${status}`}>
      <i aria-hidden="true" />
      {status}
    </span>
  );
}

/** "loss 2.31 · 18.3k tokens/s · 2 min 10 s left", of what is known; how long it has taken where nothing else is. */
export function factsOf(job: Job, nowS: number): string[] {
  const { progress, metrics, status } = job;
  const facts: string[] = [];
  const loss = metrics["train_loss"];
  if (loss !== undefined) facts.push(`loss ${metric("train_loss", loss)}`);
  if (status === "running") {
    if (progress.tokens_per_second > 0) facts.push(`${count(progress.tokens_per_second)} tokens/s`);
    if (progress.eta_s !== null) facts.push(`${duration(progress.eta_s)} left`);
    else if (job.started_at !== null) facts.push(`${duration(nowS - job.started_at)} so far`);
  } else if (job.started_at !== null) {
    facts.push(duration((job.finished_at ?? nowS) - job.started_at));
  }
  return facts;
}
