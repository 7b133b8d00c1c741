/** A conversation as the browser keeps it, and the pure steps that change it. Nothing here stores, sends or draws. */
import type { ToolCall, Usage } from "../api/types";
import { newId } from "../ui/ids";

export interface UserMessage {
  id: string;
  role: "user";
  content: string;
}

export interface AssistantMessage {
  id: string;
  role: "assistant";
  /** As received; the calculator's spans stand in it as plain text. */
  content: string;
  toolCalls: ToolCall[];
  status: "streaming" | "done" | "stopped" | "failed";
  finishReason?: string;
  usage?: Usage;
  durationMs?: number;
  error?: { status: number; code: string; message: string };
}

export type Message = UserMessage | AssistantMessage;

export interface Conversation {
  id: string;
  title: string;
  createdAt: number;
  updatedAt: number;
  messages: Message[];
  /** The model sees the messages from here on; always a user message. Grows when its context is full. */
  contextStart: number;
}

export function newConversation(firstText: string, now: number): Conversation {
  return {
    id: newId(),
    title: titleOf(firstText),
    createdAt: now,
    updatedAt: now,
    messages: [userMessage(firstText)],
    contextStart: 0,
  };
}

export function userMessage(content: string): UserMessage {
  return { id: newId(), role: "user", content };
}

export function emptyAnswer(): AssistantMessage {
  return { id: newId(), role: "assistant", content: "", toolCalls: [], status: "streaming" };
}

/** Everything before the message at `index`: what stays when that message is edited or asked again. */
export function cutAt(conversation: Conversation, index: number): Conversation {
  const contextStart = conversation.contextStart < index ? conversation.contextStart : 0;
  return { ...conversation, messages: conversation.messages.slice(0, index), contextStart };
}

export function withMessage(conversation: Conversation, message: Message): Conversation {
  return { ...conversation, messages: [...conversation.messages, message] };
}

/** Replace the last message, which is the answer being streamed. */
export function withLast(conversation: Conversation, message: Message): Conversation {
  return { ...conversation, messages: [...conversation.messages.slice(0, -1), message] };
}

/** The conversation with its oldest exchange out of the model's sight, or null when only the last one is left. */
export function withoutOldest(conversation: Conversation): Conversation | null {
  const next = conversation.messages.findIndex(
    (message, index) => message.role === "user" && index > conversation.contextStart,
  );
  return next < 0 ? null : { ...conversation, contextStart: next };
}

/** As read back from the browser's database: an answer that a reload cut off is a stopped one. */
export function restored(conversation: Conversation): Conversation {
  const messages = conversation.messages.map((message) =>
    message.role === "assistant" && message.status === "streaming" ? { ...message, status: "stopped" as const } : message,
  );
  return { ...conversation, messages };
}

function titleOf(text: string): string {
  const line = text.trim().replace(/\s+/g, " ");
  return line.length <= 60 ? line : line.slice(0, 57).trimEnd() + "…";
}
