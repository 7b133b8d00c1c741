/**
 * What to do while no model exists: train one here, or by the command. Shows a pipeline that already runs, whoever
 * started it. The chat takes this page's place as soon as a model is served.
 */
import { useEffect, useState } from "preact/hooks";
import { toApiError, type ApiError } from "../api/errors";
import { retryJob, startDemo } from "../api/jobs";
import { DEFAULT_MODEL, needsAdmin, promote } from "../api/models";
import type { Job } from "../api/types";
import { factsOf } from "../train/JobProgress";
import { currentStage, jobs, jobsError, madeCheckpoint, refreshJobs, stagesOf, topJobs } from "../train/jobs";
import { StageList } from "../train/StageList";
import { ErrorNote } from "../ui/ErrorNote";
import { Mark } from "../ui/icons";
import { usePolling } from "../ui/polling";
import { follow } from "../ui/router";
import { refreshModel } from "./served";

const POLL_MS = 2000;
/** The pipeline that this tab started: its model is served without asking again. */
const STARTED_HERE = "nanochat.started";

export function FirstRun() {
  const [error, setError] = useState<ApiError | null>(null);
  const [isBusy, setBusy] = useState(false);
  usePolling(refreshJobs, POLL_MS);
  const pipeline = topJobs.value.find((job) => job.kind === "pipeline");
  const isUnderWay = pipeline !== undefined && pipeline.status !== "cancelled";

  const act = async (step: () => Promise<unknown>): Promise<void> => {
    setBusy(true);
    setError(null);
    try {
      await step();
      await Promise.all([refreshJobs(), refreshModel()]);
    } catch (cause) {
      setError(toApiError(cause));
    } finally {
      setBusy(false);
    }
  };
  return (
    <div class="first-run">
      <div class="column">
        <Mark size={52} />
        <h1>{isUnderWay ? "A model is being made" : "There is no model yet"}</h1>
        {!isUnderWay && (
          <>
            <p class="lead">
              Train one from nothing on this machine: it learns to read, then to chat, spell, count and calculate. The demo
              takes five to ten minutes on two free cores.
            </p>
            <button type="button" class="button primary large" disabled={isBusy} onClick={() => void act(start)}>
              Train the demo model
            </button>
            <p class="muted">
              Or in a terminal, in the project's folder: <code>make demo</code>
            </p>
          </>
        )}
        {isUnderWay && <UnderWay pipeline={pipeline} isBusy={isBusy} act={act} />}
        {error && <ErrorNote error={error} />}
        {!error && jobsError.value && !needsAdmin(jobsError.value) && <ErrorNote error={jobsError.value} />}
      </div>
    </div>
  );
}

async function start(): Promise<void> {
  const job = await startDemo();
  sessionStorage.setItem(STARTED_HERE, job.id);
}

interface UnderWayProps {
  pipeline: Job;
  isBusy: boolean;
  act: (step: () => Promise<unknown>) => Promise<void>;
}

function UnderWay({ pipeline, isBusy, act }: UnderWayProps) {
  const stages = stagesOf(pipeline, jobs.value ?? []);
  const current = currentStage(stages) ?? pipeline;
  const checkpoint = pipeline.status === "succeeded" ? madeCheckpoint(pipeline, stages) : null;
  useEffect(() => {
    if (!checkpoint || sessionStorage.getItem(STARTED_HERE) !== pipeline.id) return;
    sessionStorage.removeItem(STARTED_HERE);
    void act(() => promote(DEFAULT_MODEL, checkpoint));
  }, [checkpoint]);
  return (
    <div class="under-way">
      <StageList pipeline={pipeline} stages={stages} />
      {pipeline.status === "queued" && <p class="muted">Waiting for the worker.</p>}
      {pipeline.status === "running" && (
        <p class="muted" aria-live="polite">
          {[current.kind, ...factsOf(current, Date.now() / 1000)].join(" · ")}
        </p>
      )}
      {pipeline.status === "failed" && (
        <>
          <p class="error-note">{pipeline.error?.message ?? current.error?.message ?? "The pipeline failed."}</p>
          <button type="button" class="button primary" disabled={isBusy} onClick={() => void act(() => retryJob(pipeline.id))}>
            Retry from where it stopped
          </button>
        </>
      )}
      {checkpoint && (
        <>
          <p class="lead">It is ready.</p>
          <button
            type="button"
            class="button primary large"
            disabled={isBusy}
            onClick={() => void act(() => promote(DEFAULT_MODEL, checkpoint))}
          >
            Chat with it
          </button>
        </>
      )}
      <a class="link" href={`/train#${pipeline.id}`} onClick={follow}>
        Watch it train
      </a>
    </div>
  );
}
