/** What the model is sent: the part of a conversation that it still sees, in the API's shape. */
import type { ApiMessage, Part } from "../api/types";
import type { AssistantMessage, Conversation } from "./conversation";
import { segmentsOf } from "./segments";

/**
 * System prompt, then user and assistant in turn, ending with the last user message. A question whose answer never
 * began is left out together with it, because the model knows no two questions in a row.
 */
export function historyOf(conversation: Conversation, systemPrompt: string): ApiMessage[] {
  const history: ApiMessage[] = systemPrompt.trim() ? [{ role: "system", content: systemPrompt.trim() }] : [];
  const seen = conversation.messages.slice(conversation.contextStart);
  seen.forEach((message, index) => {
    if (message.role === "assistant") {
      if (message.content) history.push({ role: "assistant", content: assistantContent(message) });
      return;
    }
    const answer = seen[index + 1];
    if (answer?.role === "assistant" && !answer.content && index + 2 < seen.length) return;
    history.push({ role: "user", content: message.content });
  });
  return history;
}

/** Parts when the calculator was called, so that the model sees its calls as calls again; else the plain text. */
function assistantContent(message: AssistantMessage): string | Part[] {
  if (message.toolCalls.length === 0) return message.content;
  return segmentsOf(message.content, message.toolCalls).flatMap((segment): Part[] => {
    if (segment.type === "text") return [{ type: "text", text: segment.text }];
    const { expression, result } = segment.call;
    return [
      { type: "python", text: expression },
      { type: "python_output", text: result ?? "" },
    ];
  });
}
