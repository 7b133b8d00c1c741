/** The list of jobs, a pipeline as one of them. */
import type { Job } from "../api/types";
import { ago } from "../ui/format";
import { follow } from "../ui/router";
import { factsOf, ProgressBar, StatusBadge } from "./JobProgress";
import { currentStage, jobs, stagesOf, topJobs } from "./jobs";

export function JobList({ shownId }: { shownId: string | undefined }) {
  return (
    <ul class="job-list">
      {topJobs.value.map((job) => (
        <JobRow key={job.id} job={job} isShown={job.id === shownId} />
      ))}
    </ul>
  );
}

function JobRow({ job, isShown }: { job: Job; isShown: boolean }) {
  const stages = stagesOf(job, jobs.value ?? []);
  const current = job.status === "running" ? currentStage(stages) : undefined;
  const facts = factsOf(current ?? job, Date.now() / 1000);
  return (
    <li>
      <a class={isShown ? "job-row is-shown" : "job-row"} href={`/train#${job.id}`} onClick={follow}>
        <span class="job-row-head">
          <b>{job.name}</b>
          <StatusBadge status={job.status} />
        </span>
        <ProgressBar ratio={ratioOf(job, stages)} status={job.status} label={`Progress of ${job.name}`} />
        <span class="job-row-facts">
          {[current?.kind ?? job.kind, ...facts].join(" · ")}
          <time>{ago(job.created_at)}</time>
        </span>
      </a>
    </li>
  );
}

/** A pipeline is as far as its stages are, each counted alike, unless the server knows better. */
function ratioOf(job: Job, stages: readonly Job[]): number {
  if (job.progress.ratio > 0 || stages.length === 0) return job.progress.ratio;
  const done = stages.map((stage) => (stage.status === "succeeded" ? 1 : stage.progress.ratio));
  return done.reduce((sum, ratio) => sum + ratio, 0) / stages.length;
}
