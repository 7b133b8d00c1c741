/** The training page: all jobs, the open one beside them (on a phone: instead of them). */
import { useState } from "preact/hooks";
import { ErrorNote } from "../ui/ErrorNote";
import { Icon } from "../ui/icons";
import { usePolling } from "../ui/polling";
import { fragment, go } from "../ui/router";
import { JobDetail } from "./JobDetail";
import { JobList } from "./JobList";
import { jobs, jobsError, refreshJobs, topJobs } from "./jobs";
import { StartForm } from "./StartForm";

const POLL_MS = 2000;

export function TrainPage() {
  const [isStarting, setStarting] = useState(false);
  usePolling(refreshJobs, POLL_MS);
  const error = jobsError.value;
  const all = jobs.value;
  const opened = all?.find((job) => job.id === fragment.value);
  const shown = opened ?? topJobs.value[0];
  return (
    <main class={opened ? "page train has-open" : "page train"}>
      <section class="train-list" aria-label="Jobs">
        <header class="page-head">
          <h1>Training</h1>
          <button type="button" class="button primary" onClick={() => setStarting(true)}>
            <Icon name="plus" size={16} /> New job
          </button>
        </header>
        {error && <ErrorNote error={error} onRetry={() => void refreshJobs()} />}
        {all?.length === 0 && (
          <p class="empty">Nothing was trained yet. Start the demo pipeline: it makes a small chat model in minutes.</p>
        )}
        <JobList shownId={shown?.id} />
      </section>
      {shown && <JobDetail key={shown.id} job={shown} />}
      {isStarting && (
        <StartForm
          onClose={() => setStarting(false)}
          onStarted={(job) => {
            setStarting(false);
            void refreshJobs().then(() => go(`/train#${job.id}`));
          }}
        />
      )}
    </main>
  );
}
