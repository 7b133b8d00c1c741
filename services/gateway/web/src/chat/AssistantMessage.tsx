/** The model's answer: its text, how it ended, and what can be done with it. */
import { Markdown } from "../markdown/Markdown";
import { ErrorNote } from "../ui/ErrorNote";
import { Icon } from "../ui/icons";
import { regenerate } from "./answering";
import type { AssistantMessage as Message } from "./conversation";
import { CopyButton } from "./CopyButton";
import { settings } from "./settings";

interface Props {
  conversationId: string;
  index: number;
  message: Message;
  isLast: boolean;
}

export function AssistantMessage({ conversationId, index, message, isLast }: Props) {
  const { status, content, toolCalls, error } = message;
  const isStreaming = status === "streaming";
  const again = (): void => regenerate(conversationId, index);
  return (
    <article class={`message assistant is-${status}${isLast ? " is-last" : ""}`} aria-label="nanochat" aria-busy={isStreaming}>
      {isStreaming && !content ? <Thinking /> : <Markdown content={content} calls={toolCalls} />}
      {error && <ErrorNote error={error} onRetry={again} />}
      {!isStreaming && (content || !error) && (
        <div class="actions">
          {content && <CopyButton text={content} />}
          <button type="button" class="icon-button" aria-label="Regenerate" title="Regenerate" onClick={again}>
            <Icon name="again" size={16} />
          </button>
          <span class="ending">{endingOf(message)}</span>
        </div>
      )}
    </article>
  );
}

function Thinking() {
  return (
    <div class="thinking" role="img" aria-label="Answering">
      <i />
      <i />
      <i />
    </div>
  );
}

function endingOf({ status, finishReason, usage, durationMs }: Message): string {
  if (status === "stopped") return "Stopped";
  if (finishReason === "length") {
    return settings.value.maxTokens === null ? "Cut off: the context is full" : "Cut off: the limit of tokens is reached";
  }
  if (!usage || !durationMs) return "";
  const rate = usage.completion_tokens / (durationMs / 1000);
  const tokens = usage.completion_tokens === 1 ? "1 token" : `${usage.completion_tokens} tokens`;
  return `${tokens} · ${rate >= 10 ? Math.round(rate) : rate.toFixed(1)}/s`;
}
