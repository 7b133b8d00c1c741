/** Starts a pipeline by its profile's name, or any job from its JSON. */
import { useMemo, useState } from "preact/hooks";
import { toApiError, type ApiError } from "../api/errors";
import { submitJob, type JobSpec } from "../api/jobs";
import type { Job } from "../api/types";
import { Dialog } from "../ui/Dialog";
import { ErrorNote } from "../ui/ErrorNote";
import { newId } from "../ui/ids";
import { TEMPLATES } from "./templates";

const PROFILES = ["demo", "quick", "demo_rl", "cpu", "d12", "speedrun", "miniseries", "scaling_laws"];

export function StartForm({ onClose, onStarted }: { onClose: () => void; onStarted: (job: Job) => void }) {
  const [isPipeline, setPipeline] = useState(true);
  const [profile, setProfile] = useState("demo");
  const [kind, setKind] = useState("pretrain");
  const [source, setSource] = useState(jsonOf("pretrain"));
  const [error, setError] = useState<ApiError | null>(null);
  const [isBusy, setBusy] = useState(false);
  // One key for the same text: pressing twice starts one job, a corrected text is a new request.
  const key = useMemo(newId, [isPipeline, profile, source]);

  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      const spec = isPipeline ? { kind: "pipeline", config: { profile } } : (JSON.parse(source) as JobSpec);
      onStarted(await submitJob(spec, key));
    } catch (cause) {
      setError(cause instanceof SyntaxError ? toApiError(new Error(`This is no JSON: ${cause.message}.`)) : toApiError(cause));
    } finally {
      setBusy(false);
    }
  };
  const choose = (chosen: string): void => {
    setKind(chosen);
    setSource(jsonOf(chosen));
  };
  return (
    <Dialog title="New job" onClose={onClose}>
      <form class="stack" onSubmit={(event) => void submit(event)}>
        <fieldset class="segmented">
          <legend class="visually-hidden">What to start</legend>
          <label>
            <input type="radio" name="what" checked={isPipeline} onChange={() => setPipeline(true)} />
            <span>Pipeline</span>
          </label>
          <label>
            <input type="radio" name="what" checked={!isPipeline} onChange={() => setPipeline(false)} />
            <span>Single job</span>
          </label>
        </fieldset>
        {isPipeline ? (
          <label class="field">
            <span>Profile</span>
            <input
              list="profiles"
              value={profile}
              spellcheck={false}
              onInput={(event) => setProfile(event.currentTarget.value.trim())}
            />
            <datalist id="profiles">
              {PROFILES.map((name) => (
                <option key={name} value={name} />
              ))}
            </datalist>
            <small>demo trains a small chat model from nothing, in minutes on two cores.</small>
          </label>
        ) : (
          <>
            <label class="field">
              <span>Kind</span>
              <select value={kind} onChange={(event) => choose(event.currentTarget.value)}>
                {Object.keys(TEMPLATES).map((name) => (
                  <option key={name}>{name}</option>
                ))}
              </select>
            </label>
            <label class="field">
              <span>Job</span>
              <textarea
                class="code-input"
                rows={14}
                spellcheck={false}
                value={source}
                onInput={(event) => setSource(event.currentTarget.value)}
              />
              <small>Leave a key out to have it worked out. An unknown key is refused by name.</small>
            </label>
          </>
        )}
        {error && <ErrorNote error={error} />}
        <div class="row-end">
          <button type="button" class="button" onClick={onClose}>
            Close
          </button>
          <button type="submit" class="button primary" disabled={isBusy}>
            Start
          </button>
        </div>
      </form>
    </Dialog>
  );
}

function jsonOf(kind: string): string {
  return JSON.stringify(TEMPLATES[kind], null, 2);
}
