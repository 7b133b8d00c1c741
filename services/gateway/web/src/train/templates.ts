/** A first draft of each kind of job, to change before it is started. */
import type { JobSpec } from "../api/jobs";

export const TEMPLATES: Record<string, JobSpec> = {
  tokenizer: { kind: "tokenizer", name: "my-tokenizer", config: { dataset: "python-docs", vocab_size: 4096 } },
  pretrain: {
    kind: "pretrain",
    name: "my-model",
    config: {
      dataset: "python-docs",
      tokenizer: "my-tokenizer",
      depth: 4,
      head_dim: 64,
      max_seq_len: 512,
      device_batch_size: 8,
      total_batch_size: 4096, // the automatic size is one for GPUs
      num_iterations: 500,
    },
  },
  sft: {
    kind: "sft",
    name: "my-chat",
    config: {
      checkpoint: "my-model",
      mixture: [{ task: "spelling" }, { task: "counting" }, { task: "arithmetic" }, { task: "smalltalk" }],
      num_iterations: 500,
    },
  },
  rl: {
    kind: "rl",
    name: "my-rl",
    config: { checkpoint: "my-chat", task: "counting", num_iterations: 100, max_new_tokens: 64, eval_every: 20 },
  },
  evaluate: { kind: "evaluate", name: "my-evaluation", config: { checkpoint: "my-chat", evals: ["bpb", "chat"] } },
  pipeline: { kind: "pipeline", name: "my-pipeline", config: { profile: "demo", overrides: {} } },
};
