/** The models page: what is served, and the checkpoints that could be. */
import { useSignal } from "@preact/signals";
import { useState } from "preact/hooks";
import { toApiError, type ApiError } from "../api/errors";
import { DEFAULT_MODEL, listCheckpoints, promote, rollBack } from "../api/models";
import type { Checkpoint } from "../api/types";
import { refreshModel, servedModel, serverState } from "../chat/served";
import { ErrorNote } from "../ui/ErrorNote";
import { usePolling } from "../ui/polling";
import { toast } from "../ui/toast";
import { CheckpointList } from "./CheckpointList";
import { ServedModel } from "./ServedModel";

const POLL_MS = 5000;

export function ModelsPage() {
  const checkpoints = useSignal<Checkpoint[] | null>(null);
  const error = useSignal<ApiError | null>(null);
  /** The checkpoint being promoted, or "rollback". */
  const [busy, setBusy] = useState<string | null>(null);

  const refresh = async (): Promise<void> => {
    await refreshModel();
    try {
      const list = await listCheckpoints();
      checkpoints.value = list.sort((a, b) => b.created_at - a.created_at);
      error.value = null;
    } catch (cause) {
      error.value = toApiError(cause);
    }
  };
  usePolling(refresh, POLL_MS);

  const model = servedModel.value?.id ?? DEFAULT_MODEL;
  const change = async (what: string, step: () => Promise<void>): Promise<void> => {
    setBusy(what);
    try {
      await step();
      await refresh();
      toast(`Now serving ${servedModel.value?.nanochat?.checkpoint ?? model}.`);
    } catch (cause) {
      toast(toApiError(cause).message, true);
    } finally {
      setBusy(null);
    }
  };
  return (
    <main class="page models">
      <header class="page-head">
        <h1>Models</h1>
      </header>
      <ServedModel
        model={servedModel.value}
        isAsking={serverState.value === "asking"}
        isBusy={busy !== null}
        onRollBack={() => void change("rollback", () => rollBack(model))}
      />
      <h2>Checkpoints</h2>
      {error.value && <ErrorNote error={error.value} onRetry={() => void refresh()} />}
      {checkpoints.value?.length === 0 && <p class="empty">No checkpoint yet. A training job writes them here.</p>}
      {checkpoints.value && checkpoints.value.length > 0 && (
        <CheckpointList
          checkpoints={checkpoints.value}
          servedId={servedModel.value?.nanochat?.checkpoint}
          busyId={busy}
          onPromote={(id) => void change(id, () => promote(model, id))}
        />
      )}
    </main>
  );
}
