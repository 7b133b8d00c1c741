/**
 * Asks the model and streams its answer into the conversation. Runs outside the components, so that leaving the page
 * for another one does not end an answer. When the model's context is full, the oldest exchanges are left out.
 */
import { signal } from "@preact/signals";
import { streamChat, type ChatRequest } from "../api/chat";
import { isAbort, toApiError } from "../api/errors";
import type { AssistantMessage, Conversation } from "./conversation";
import { cutAt, emptyAnswer, newConversation, userMessage, withLast, withMessage, withoutOldest } from "./conversation";
import { historyOf } from "./history";
import { mergeCalls } from "./segments";
import { refreshModel, servedModel } from "./served";
import { settings } from "./settings";
import * as store from "./store";
import { DEFAULT_MODEL } from "../api/models";

const REDRAW_MS = 40;

/** Ids of the conversations that are being answered. */
export const answering = signal<ReadonlyMap<string, AbortController>>(new Map());

/** Send a user's message to the open conversation, or begin one. */
export function send(text: string): void {
  const now = Date.now();
  const current = store.openConversation.value;
  const conversation = current
    ? { ...withMessage(current, userMessage(text)), updatedAt: now }
    : newConversation(text, now);
  store.put(conversation);
  store.open(conversation.id);
  void answer(conversation.id);
}

/** Ask again for the answer at `index`; what came after it is dropped. */
export function regenerate(id: string, index: number): void {
  stop(id);
  store.change(id, (conversation) => cutAt(conversation, index));
  void answer(id);
}

/** Replace the user message at `index`; what came after it is dropped. */
export function edit(id: string, index: number, text: string): void {
  stop(id);
  store.change(id, (conversation) => withMessage(cutAt(conversation, index), userMessage(text)));
  void answer(id);
}

export function stop(id: string): void {
  answering.value.get(id)?.abort();
}

async function answer(id: string): Promise<void> {
  const abort = new AbortController();
  answering.value = new Map(answering.value).set(id, abort);
  try {
    while (await attempt(id, abort.signal)) {
      // The context was full and one exchange fewer is worth another try.
    }
  } finally {
    if (answering.value.get(id) === abort) {
      const rest = new Map(answering.value);
      rest.delete(id);
      answering.value = rest;
    }
  }
}

/** One request. True when the context was full and an older exchange could be left out. */
async function attempt(id: string, signal: AbortSignal): Promise<boolean> {
  const conversation = store.find(id);
  if (!conversation) return false;
  let message = emptyAnswer();
  store.put(withMessage(conversation, message));
  const startedAt = performance.now();
  const show = (): void => store.change(id, (current) => replaceAnswer(current, message));
  let redraw: number | undefined;
  try {
    for await (const piece of streamChat(requestFor(conversation), signal)) {
      message = {
        ...message,
        content: message.content + (piece.text ?? ""),
        toolCalls: mergeCalls(message.toolCalls, piece.toolCalls ?? []),
        ...(piece.finishReason ? { finishReason: piece.finishReason } : {}),
        ...(piece.usage ? { usage: piece.usage } : {}),
      };
      redraw ??= window.setTimeout(() => {
        redraw = undefined;
        show();
      }, REDRAW_MS);
    }
    message = { ...message, status: "done", durationMs: performance.now() - startedAt };
  } catch (cause) {
    if (isAbort(cause)) {
      message = { ...message, status: "stopped" };
    } else {
      const error = toApiError(cause);
      const shorter = error.code === "context_length_exceeded" ? withoutOldest(conversation) : null;
      if (shorter) {
        store.put(shorter);
        return true;
      }
      if (error.status === 404 || error.status === 503) void refreshModel();
      message = { ...message, status: "failed", error: { status: error.status, code: error.code, message: error.message } };
    }
  } finally {
    window.clearTimeout(redraw);
  }
  show();
  makeRoom(id, message);
  store.saveNow(id);
  return false;
}

/** Write the answer over its own earlier state; after an edit or a newer question it has no place any more. */
function replaceAnswer(conversation: Conversation, message: AssistantMessage): Conversation {
  return conversation.messages.at(-1)?.id === message.id ? withLast(conversation, message) : conversation;
}

/** An answer cut off by a full context leaves no room for the next question: forget the oldest exchange now. */
function makeRoom(id: string, message: AssistantMessage): void {
  if (message.finishReason !== "length" || settings.value.maxTokens !== null) return;
  store.change(id, (conversation) => withoutOldest(conversation) ?? conversation);
}

function requestFor(conversation: Conversation): ChatRequest {
  const { systemPrompt, temperature, topK, maxTokens } = settings.value;
  return {
    model: servedModel.value?.id ?? DEFAULT_MODEL,
    messages: historyOf(conversation, systemPrompt),
    temperature,
    top_k: topK,
    ...(maxTokens === null ? {} : { max_tokens: maxTokens }),
  };
}
