/** One job, live: its row, its curves and its log. Rows and curves are asked for once, then the event stream goes on. */
import { useEffect, useState } from "preact/hooks";
import { isAbort, toApiError, type ApiError } from "../api/errors";
import { getJob, getSeries, isFinal, jobEvents } from "../api/jobs";
import type { ServerEvent } from "../api/sse";
import type { Job, JobProgress, JobStatus, Series } from "../api/types";
import { readable } from "./logLine";

const NUM_LOG_LINES = 500;
const RECONNECT_MS = 2000;
const REDRAW_MS = 250;

export interface LiveJob {
  job: Job | null;
  series: Series;
  log: string[];
  error: ApiError | null;
}

/** Follow a job. `version` is any value whose change means: look again (a retry, say). */
export function useLiveJob(id: string, version: unknown): LiveJob {
  const [live, setLive] = useState<LiveJob>(() => new Follower(id).shown());
  useEffect(() => {
    const abort = new AbortController();
    const follower = new Follower(id);
    setLive(follower.shown());
    void follower.run(abort.signal, setLive);
    return () => abort.abort();
  }, [id, version]);
  return live;
}

/** Gathers what is known of a job, and shows it a few times a second however fast events come. */
class Follower {
  private job: Job | null = null;
  private series: Series = {};
  private log: string[] = [];
  private error: ApiError | null = null;
  private lastId: string | null = null;
  /** The attempt that the events are telling of: a stream begins with the job's whole past. */
  private attempt = 0;
  private redraw: number | undefined;

  constructor(private readonly id: string) {}

  shown(): LiveJob {
    return { job: this.job, series: this.series, log: this.log, error: this.error };
  }

  /** Until the job has ended or `signal` fires; a lost connection is taken up where it broke. */
  async run(signal: AbortSignal, show: (live: LiveJob) => void): Promise<void> {
    const changed = (): void => {
      this.redraw ??= window.setTimeout(() => {
        this.redraw = undefined;
        if (!signal.aborted) show(this.shown());
      }, REDRAW_MS);
    };
    while (!signal.aborted) {
      try {
        [this.job, this.series] = await Promise.all([getJob(this.id), getSeries(this.id)]);
        this.error = null;
        changed();
        for await (const event of jobEvents(this.id, this.lastId, signal)) {
          this.take(event);
          changed();
        }
        this.job = await getJob(this.id);
        changed();
        if (isFinal(this.job)) return;
      } catch (cause) {
        if (isAbort(cause)) return;
        this.error = toApiError(cause);
        changed();
        if (this.error.status >= 400 && this.error.status < 500) return;
      }
      await new Promise((resolve) => window.setTimeout(resolve, RECONNECT_MS));
    }
  }

  private take({ event, data, id }: ServerEvent): void {
    this.lastId = id ?? this.lastId;
    if (event === "status") this.takeStatus(JSON.parse(data) as StatusEvent);
    else if (event === "progress") this.takeProgress(JSON.parse(data) as JobProgress);
    else if (event === "metric") this.takeMetric(JSON.parse(data) as MetricEvent);
    else if (event === "log") this.takeLog((JSON.parse(data) as { lines: string[] }).lines);
  }

  private takeStatus({ status, attempt, error }: StatusEvent): void {
    this.attempt = attempt;
    if (this.job && attempt >= this.job.attempt && !isFinal(this.job)) {
      this.job = { ...this.job, status, attempt, error };
    }
  }

  private takeProgress(progress: JobProgress): void {
    const job = this.job;
    if (!job || this.attempt < job.attempt || progress.step < job.progress.step) return;
    this.job = { ...job, progress: { ...job.progress, ...progress } };
  }

  private takeMetric({ step, time, values }: MetricEvent): void {
    const series = { ...this.series };
    for (const [name, value] of Object.entries(values)) {
      const points = series[name] ?? [];
      // The stream repeats what the request for the whole series has brought already.
      if (time > (points.at(-1)?.time ?? 0)) series[name] = [...points, { step, time, value }];
    }
    this.series = series;
    if (this.job) this.job = { ...this.job, metrics: { ...this.job.metrics, ...values } };
  }

  private takeLog(lines: string[]): void {
    this.log = [...this.log, ...lines.slice(-NUM_LOG_LINES).map(readable)].slice(-NUM_LOG_LINES);
  }
}

interface StatusEvent {
  status: JobStatus;
  attempt: number;
  error: Job["error"];
}

interface MetricEvent {
  step: number;
  time: number;
  values: Record<string, number>;
}
