/** Which model answers: asked again while there is none, so that the chat appears by itself. */
import { signal } from "@preact/signals";
import { toApiError, type ApiError } from "../api/errors";
import { listModels } from "../api/models";
import type { Model } from "../api/types";

export const servedModel = signal<Model | null>(null);
/** "asking" until the first answer came. */
export const serverState = signal<"asking" | "ready" | "no-model" | ApiError>("asking");

export async function refreshModel(): Promise<void> {
  try {
    const [model] = await listModels();
    servedModel.value = model ?? null;
    serverState.value = model ? "ready" : "no-model";
  } catch (cause) {
    serverState.value = toApiError(cause);
  }
}
