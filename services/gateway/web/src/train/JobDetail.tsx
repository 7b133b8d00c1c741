/** The open job: its name and state, what can be done with it, its stages where it is a pipeline. */
import { useState } from "preact/hooks";
import { toApiError } from "../api/errors";
import { cancelJob, isFinal, retryJob } from "../api/jobs";
import { openReport, runOf } from "../api/reports";
import type { Job } from "../api/types";
import { ago } from "../ui/format";
import { Icon } from "../ui/icons";
import { follow } from "../ui/router";
import { toast } from "../ui/toast";
import { JobBody } from "./JobBody";
import { StatusBadge } from "./JobProgress";
import { currentStage, jobs, refreshJobs, stagesOf } from "./jobs";
import { StageList } from "./StageList";

export function JobDetail({ job }: { job: Job }) {
  const [chosen, setChosen] = useState<string | null>(null);
  const stages = stagesOf(job, jobs.value ?? []);
  const shown = stages.find(({ id }) => id === chosen) ?? currentStage(stages) ?? job;
  return (
    <section class="job-detail" aria-label={job.name}>
      <a class="back only-phone" href="/train" onClick={follow}>
        <Icon name="back" /> All jobs
      </a>
      <header class="job-head">
        <div>
          <h2>{job.name}</h2>
          <p class="muted">
            <StatusBadge status={job.status} /> {job.kind} · <span title={job.id}>{ago(job.created_at)}</span>
          </p>
        </div>
        <Actions job={job} />
      </header>
      {stages.length > 0 && <StageList pipeline={job} stages={stages} shownId={shown.id} onShow={setChosen} />}
      {job.error && shown.id !== job.id && !shown.error && <p class="error-note">{job.error.message}</p>}
      <JobBody key={shown.id} listed={shown} />
    </section>
  );
}

function Actions({ job }: { job: Job }) {
  const [isBusy, setBusy] = useState(false);
  const act = async (step: (id: string) => Promise<Job>): Promise<void> => {
    setBusy(true);
    try {
      await step(job.id);
      await refreshJobs();
    } catch (cause) {
      toast(toApiError(cause).message, true);
    } finally {
      setBusy(false);
    }
  };
  const run = runOf(job);
  const report = (name: string): void => void openReport(name).catch((cause) => toast(toApiError(cause).message, true));
  return (
    <div class="row">
      {run !== null && (
        <button type="button" class="button small" onClick={() => report(run)}>
          Report
        </button>
      )}
      {!isFinal(job) && (
        <button type="button" class="button small danger" disabled={isBusy} onClick={() => void act(cancelJob)}>
          Cancel
        </button>
      )}
      {(job.status === "failed" || job.status === "cancelled") && (
        <button type="button" class="button small" disabled={isBusy} onClick={() => void act(retryJob)}>
          <Icon name="again" size={15} /> Retry
        </button>
      )}
    </div>
  );
}
