/** Models that are served, checkpoints that could be, and the switch between them. */
import { getJson, postJson } from "./client";
import { ApiError } from "./errors";
import type { Checkpoint, Model, Page } from "./types";

/** What the served model is called before there is one. */
export const DEFAULT_MODEL = "nanochat";

/** The served models; empty while none was promoted. */
export async function listModels(): Promise<Model[]> {
  const page = await getJson<Page<Model>>("/v1/models");
  return page.data;
}

export async function listCheckpoints(): Promise<Checkpoint[]> {
  const page = await getJson<Page<Checkpoint>>("/v1/checkpoints");
  return page.data;
}

export async function promote(model: string, checkpoint: string): Promise<void> {
  await postJson(`/v1/models/${encodeURIComponent(model)}/promote`, { checkpoint });
}

export async function rollBack(model: string): Promise<void> {
  await postJson(`/v1/models/${encodeURIComponent(model)}/rollback`);
}

export function needsAdmin(error: ApiError): boolean {
  return error.status === 401 || error.status === 403;
}
