/** The shapes that cross the wire, as the public contract names them. Only what the pages read is listed. */

export interface Model {
  id: string;
  created: number;
  nanochat?: { checkpoint?: string; context_length?: number; num_parameters?: number };
}

/** A calculator call; `start` and `end` are code-point offsets of its span in the message's content. */
export interface ToolCall {
  expression: string;
  result: string | null;
  start: number;
  end: number;
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
}

export type Part = { type: "text" | "python" | "python_output"; text: string };

export interface ApiMessage {
  role: "system" | "user" | "assistant";
  content: string | Part[];
}

export type JobStatus = "queued" | "running" | "succeeded" | "failed" | "cancelled";

export interface JobProgress {
  step: number;
  num_steps: number;
  ratio: number;
  tokens: number;
  tokens_per_second: number;
  eta_s: number | null;
}

export interface Job {
  id: string;
  kind: string;
  name: string;
  status: JobStatus;
  created_at: number;
  started_at: number | null;
  finished_at: number | null;
  attempt: number;
  max_attempts: number;
  progress: JobProgress;
  metrics: Record<string, number>;
  checkpoint: string | null;
  output: string | null;
  error: { code: string; message: string; log_tail: string[] } | null;
  parent_id: string | null;
  stages: string[];
  config: Record<string, unknown>;
}

export interface Page<T> {
  data: T[];
  has_more?: boolean;
}

export interface Point {
  step: number;
  time: number;
  value: number;
}

/** Per metric, its points in the order of time. */
export type Series = Record<string, Point[]>;

export interface Checkpoint {
  id: string;
  run: string;
  stage: string;
  step: number;
  created_at: number;
  size_bytes: number;
  metrics: Record<string, number>;
  config: Record<string, unknown>;
}
