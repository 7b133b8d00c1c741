/** The checkpoints, newest first, each with a button that makes it the served model. */
import type { Checkpoint } from "../api/types";
import { ago, metric, metricName, size } from "../ui/format";

interface Props {
  checkpoints: readonly Checkpoint[];
  servedId: string | undefined;
  busyId: string | null;
  onPromote: (id: string) => void;
}

const NUM_METRICS = 4;

export function CheckpointList({ checkpoints, servedId, busyId, onPromote }: Props) {
  return (
    <ul class="checkpoints">
      {checkpoints.map((checkpoint) => (
        <li key={checkpoint.id} class="checkpoint">
          <div class="checkpoint-name">
            <b>{checkpoint.run}</b>
            <span class="tag">{checkpoint.stage}</span>
            <span class="muted">step {checkpoint.step.toLocaleString("en")}</span>
          </div>
          <p class="muted checkpoint-facts">
            {Object.entries(checkpoint.metrics)
              .slice(0, NUM_METRICS)
              .map(([name, value]) => (
                <span key={name}>
                  {metricName(name)} <b>{metric(name, value)}</b>
                </span>
              ))}
            <span>{size(checkpoint.size_bytes)}</span>
            <span>{ago(checkpoint.created_at)}</span>
          </p>
          {checkpoint.id === servedId ? (
            <span class="status is-running">
              <i aria-hidden="true" />
              serving
            </span>
          ) : (
            <button
              type="button"
              class="button small"
              disabled={busyId !== null}
              aria-label={`Promote ${checkpoint.id}`}
              onClick={() => onPromote(checkpoint.id)}
            >
              {busyId === checkpoint.id ? "Promoting…" : "Promote"}
            </button>
          )}
        </li>
      ))}
    </ul>
  );
}
