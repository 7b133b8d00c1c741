/** The list of jobs, a pipeline as one of them. */
import type { Job } from "../api/types";
import { ago } from "../ui/format";
import { follow } from "../ui/router";
import { factsOf, ProgressBar, StatusBadge } from "./JobProgress";
import { currentStage, hasOlder, jobs, showOlder, stagesOf, topJobs } from "./jobs";

export function JobList({ shownId }: { shownId: string | undefined }) {
  return (
    <>
      <ul class="job-list">
        {topJobs.value.map((job) => (
          <JobRow key={job.id} job={job} isShown={job.id === shownId} />
        ))}
      </ul>
      {hasOlder.value && (
        <button type="button" class="link older" onClick={() => void showOlder()}>
          Older jobs
        </button>
      )}
    </>
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
        <ProgressBar ratio={job.progress.ratio} status={job.status} label={`Progress of ${job.name}`} />
        <span class="job-row-facts">
          {[current?.kind ?? job.kind, ...facts].join(" · ")}
          <time>{ago(job.created_at)}</time>
        </span>
      </a>
    </li>
  );
}
