/** The card of the model that answers now. */
import type { Model } from "../api/types";
import { ago, count } from "../ui/format";
import { follow } from "../ui/router";

interface Props {
  model: Model | null;
  isAsking: boolean;
  isBusy: boolean;
  onRollBack: () => void;
}

export function ServedModel({ model, isAsking, isBusy, onRollBack }: Props) {
  if (isAsking) return <div class="card served" aria-busy="true" />;
  if (!model) {
    return (
      <div class="card served">
        <p>
          Nothing is served. Promote a checkpoint below, or{" "}
          <a href="/" onClick={follow}>
            train one
          </a>
          .
        </p>
      </div>
    );
  }
  const { checkpoint, context_length, num_parameters } = model.nanochat ?? {};
  return (
    <section class="card served" aria-label="Served model">
      <div>
        <p class="served-name">
          <i class="live-dot" aria-hidden="true" /> {model.id}
        </p>
        <p class="mono">{checkpoint}</p>
        <p class="muted">
          {[
            num_parameters ? `${count(num_parameters)} parameters` : "",
            context_length ? `context of ${count(context_length)} tokens` : "",
            `written ${ago(model.created)}`,
          ]
            .filter(Boolean)
            .join(" · ")}
        </p>
      </div>
      <button type="button" class="button" disabled={isBusy} onClick={onRollBack}>
        Roll back
      </button>
    </section>
  );
}
