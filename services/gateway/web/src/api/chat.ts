/** POST /v1/chat/completions as a stream of the few things that the chat page needs. */
import { jsonBody, request } from "./client";
import { ApiError } from "./errors";
import { readEvents } from "./sse";
import type { ApiMessage, ToolCall, Usage } from "./types";

export interface ChatRequest {
  model: string;
  messages: ApiMessage[];
  temperature: number;
  top_k: number;
  max_tokens?: number;
}

export interface ChatPiece {
  text?: string;
  toolCalls?: ToolCall[];
  finishReason?: string;
  usage?: Usage;
}

interface Extended {
  nanochat?: { tool_calls?: ToolCall[] };
}

interface Chunk extends Extended {
  error?: { message: string; code: string | null };
  choices?: (Extended & { delta?: Extended & { content?: string | null }; finish_reason?: string | null })[];
  usage?: Usage | null;
}

/** Yields the answer's pieces. Throws ApiError when the server reports an error or the stream breaks off. */
export async function* streamChat(body: ChatRequest, signal: AbortSignal): AsyncGenerator<ChatPiece> {
  const init = jsonBody({ ...body, stream: true, stream_options: { include_usage: true } });
  const response = await request("/v1/chat/completions", { ...init, signal });
  for await (const { data } of readEvents(response)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data) as Chunk;
    if (chunk.error) throw new ApiError(chunk.error.message, 200, chunk.error.code ?? "error");
    yield pieceOf(chunk);
  }
  throw new ApiError("The answer broke off: the connection was lost.", 0, "interrupted");
}

function pieceOf(chunk: Chunk): ChatPiece {
  const piece: ChatPiece = {};
  const choice = chunk.choices?.[0];
  const calls = [chunk, choice, choice?.delta].flatMap((part) => part?.nanochat?.tool_calls ?? []);
  if (choice?.delta?.content) piece.text = choice.delta.content;
  if (calls.length > 0) piece.toolCalls = calls;
  if (choice?.finish_reason) piece.finishReason = choice.finish_reason;
  if (chunk.usage) piece.usage = chunk.usage;
  return piece;
}
