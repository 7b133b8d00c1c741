/** How answers are sampled, kept in this browser. */
import { effect, signal } from "@preact/signals";

export interface ChatSettings {
  systemPrompt: string;
  /** 0 takes the likeliest token. */
  temperature: number;
  /** 0: off. */
  topK: number;
  /** Null: what the model's context leaves. */
  maxTokens: number | null;
}

export const DEFAULTS: ChatSettings = { systemPrompt: "", temperature: 0.3, topK: 50, maxTokens: null };

const NAME = "nanochat.settings";

export const settings = signal<ChatSettings>(read());
effect(() => localStorage.setItem(NAME, JSON.stringify(settings.value)));

function read(): ChatSettings {
  try {
    return { ...DEFAULTS, ...(JSON.parse(localStorage.getItem(NAME) ?? "{}") as Partial<ChatSettings>) };
  } catch {
    return DEFAULTS;
  }
}
