/** What one job is doing: progress, curves, numbers, log, and why it failed. */
import type { Job, Point, Series } from "../api/types";
import { ErrorNote } from "../ui/ErrorNote";
import { count, duration, metric, metricName } from "../ui/format";
import { Curve } from "./Curve";
import { ProgressBar } from "./JobProgress";
import { useLiveJob } from "./live";
import { LogTail } from "./LogTail";

// The curves one looks at first; the others follow by name.
const FIRST = ["train_loss", "val_bpb", "reward"];

export function JobBody({ listed }: { listed: Job }) {
  const { job: live, series, log, error } = useLiveJob(listed.id, listed.attempt);
  const job = live?.id === listed.id ? live : listed;
  const curves = Object.keys(series)
    .filter((name) => isCurve(series[name]) && !isBesideResult(name, job.metrics))
    .sort(byInterest);
  return (
    <div class="job-body">
      {error && <ErrorNote error={error} />}
      {job.error && <Failure error={job.error} />}
      <Facts job={job} />
      {curves.length > 0 && (
        <div class="curves">
          {curves.map((name) => (
            <Curve key={name} name={name} points={series[name] ?? []} />
          ))}
        </div>
      )}
      <Values job={job} series={series} />
      <h3>Log</h3>
      <LogTail lines={log} />
      <details class="config">
        <summary>Config</summary>
        <pre class="log">{JSON.stringify(job.config, null, 2)}</pre>
      </details>
    </div>
  );
}

function Failure({ error }: { error: NonNullable<Job["error"]> }) {
  return (
    <div class="error-note" role="alert">
      <p>
        {error.message} <code>{error.code}</code>
      </p>
      {error.log_tail.length > 0 && <pre class="log">{error.log_tail.join("\n")}</pre>}
    </div>
  );
}

function Facts({ job }: { job: Job }) {
  const { progress, status } = job;
  const facts: [string, string][] = [];
  if (progress.num_steps > 0) facts.push(["Step", `${count(progress.step)} of ${count(progress.num_steps)}`]);
  if (progress.tokens > 0) facts.push(["Tokens", count(progress.tokens)]);
  if (progress.tokens_per_second > 0) facts.push(["Tokens/s", count(progress.tokens_per_second)]);
  if (status === "running" && progress.eta_s !== null) facts.push(["Time left", duration(progress.eta_s)]);
  if (job.started_at !== null && job.finished_at !== null) facts.push(["Took", duration(job.finished_at - job.started_at)]);
  if (job.attempt > 1) facts.push(["Attempt", `${job.attempt} of ${job.max_attempts}`]);
  return (
    <section class="job-facts">
      <ProgressBar ratio={progress.ratio} status={status} label={`Progress of ${job.name}`} />
      <dl class="tiles">
        {facts.map(([label, value]) => (
          <div key={label}>
            <dt>{label}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}

/** Metrics that were measured once, or never changed: a tile each. */
function Values({ job, series }: { job: Job; series: Series }) {
  const names = Object.keys(job.metrics)
    .filter((name) => !isCurve(series[name]) && !isBesideResult(name, job.metrics))
    .sort(byInterest);
  if (names.length === 0) return null;
  return (
    <dl class="tiles">
      {names.map((name) => (
        <div key={name}>
          <dt title={metricName(name)}>{metricName(name)}</dt>
          <dd>
            {metric(name, job.metrics[name] ?? NaN)} <small>{sizeOf(name, job.metrics)}</small>
          </dd>
        </div>
      ))}
    </dl>
  );
}

/** A result comes with its number of examples, its standard error and its time; they are one tile. */
function isBesideResult(name: string, metrics: Job["metrics"]): boolean {
  const result = /^(.+)_(count|stderr|seconds)$/.exec(name)?.[1];
  return result !== undefined && ["", "_accuracy", "_metric"].some((end) => `${result}${end}` in metrics);
}

function sizeOf(name: string, metrics: Job["metrics"]): string {
  const num = metrics[`${name.replace(/_(accuracy|metric)$/, "")}_count`];
  return num === undefined ? "" : `of ${count(num)}`;
}

function isCurve(points: readonly Point[] = []): boolean {
  return points.some(({ value }) => value !== points[0]?.value);
}

function byInterest(a: string, b: string): number {
  const place = (name: string): number => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);
  return place(a) - place(b) || a.localeCompare(b);
}
