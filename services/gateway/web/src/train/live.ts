/** One job, live: its row, its curves and its log, from one request each and then from its event stream. */
import { useEffect, useState } from "preact/hooks";
import { isAbort, toApiError, type ApiError } from "../api/errors";
import { getJob, getSeries, isFinal, jobEvents } from "../api/jobs";
import type { ServerEvent } from "../api/sse";
import type { Job, JobProgress, Series } from "../api/types";

const NUM_LOG_LINES = 500;
const RECONNECT_MS = 2000;
const REDRAW_MS = 250;

export interface LiveJob {
  job: Job | null;
  series: Series;
  log: string[];
  error: ApiError | null;
}

const NOTHING: LiveJob = { job: null, series: {}, log: [], error: null };

/** Follow a job. `version` is any value whose change means: look again (a retry, say). */
export function useLiveJob(id: string, version: unknown): LiveJob {
  const [live, setLive] = useState<LiveJob>(NOTHING);
  useEffect(() => {
    const abort = new AbortController();
    setLive(NOTHING);
    void followJob(id, abort.signal, setLive);
    return () => abort.abort();
  }, [id, version]);
  return live;
}

/** Show the job until it has ended or `signal` fires; a lost connection is taken up where it broke. */
async function followJob(id: string, signal: AbortSignal, show: (live: LiveJob) => void): Promise<void> {
  let live = NOTHING;
  let redraw: number | undefined;
  const update = (next: LiveJob): void => {
    live = next;
    redraw ??= window.setTimeout(() => {
      redraw = undefined;
      if (!signal.aborted) show(live);
    }, REDRAW_MS);
  };
  let lastId: string | null = null;
  while (!signal.aborted) {
    try {
      const [job, series] = await Promise.all([getJob(id), getSeries(id)]);
      if (signal.aborted) return;
      update({ ...live, job, series, error: null });
      for await (const event of jobEvents(id, lastId, signal)) {
        lastId = event.id ?? lastId;
        update(withEvent(live, event));
      }
      const ended = await getJob(id);
      update({ ...live, job: ended });
      if (isFinal(ended)) return;
    } catch (cause) {
      if (isAbort(cause) || signal.aborted) return;
      const error = toApiError(cause);
      update({ ...live, error });
      if (error.status >= 400 && error.status < 500) return;
    }
    await new Promise((resolve) => window.setTimeout(resolve, RECONNECT_MS));
  }
}

function withEvent(live: LiveJob, { event, data }: ServerEvent): LiveJob {
  const { job } = live;
  const value = JSON.parse(data) as Record<string, unknown>;
  switch (event) {
    case "status":
      return job ? { ...live, job: { ...job, ...(value as Partial<Job>) } } : live;
    case "progress":
      return job ? { ...live, job: { ...job, progress: { ...job.progress, ...(value as Partial<JobProgress>) } } } : live;
    case "metric":
      return withMetric(live, value as unknown as MetricEvent);
    case "log":
      return { ...live, log: [...live.log, ...linesOf(value)].slice(-NUM_LOG_LINES) };
    default:
      return live;
  }
}

interface MetricEvent {
  step: number;
  time: number;
  values: Record<string, number>;
}

function withMetric(live: LiveJob, { step, time, values }: MetricEvent): LiveJob {
  const series: Series = { ...live.series };
  for (const [name, value] of Object.entries(values)) {
    const earlier = series[name] ?? [];
    // The request for the whole series and the event stream overlap; a resumed job repeats its last steps.
    series[name] = [...earlier.filter((point) => point[0] < step), [step, value, time]];
  }
  const job = live.job && { ...live.job, metrics: { ...live.job.metrics, ...values } };
  return { ...live, job, series };
}

function linesOf(value: Record<string, unknown>): string[] {
  return Array.isArray(value["lines"]) ? (value["lines"] as string[]) : [String(value["line"] ?? "")];
}
