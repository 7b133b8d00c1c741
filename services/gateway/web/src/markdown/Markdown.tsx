/** A model's text, drawn. Its code blocks can be copied. */
import { useMemo } from "preact/hooks";
import type { ToolCall } from "../api/types";
import { copyText } from "../ui/clipboard";
import { renderMarkdown } from "./render";

export function Markdown({ content, calls }: { content: string; calls: readonly ToolCall[] }) {
  const html = useMemo(() => renderMarkdown(content, calls), [content, calls]);
  return <div class="markdown" onClick={copyCode} dangerouslySetInnerHTML={{ __html: html }} />;
}

function copyCode(event: MouseEvent): void {
  const button = event.target;
  if (!(button instanceof HTMLButtonElement) || !button.classList.contains("code-copy")) return;
  void copyText(button.closest(".code")?.querySelector("code")?.textContent ?? "").then((copied) => {
    button.textContent = copied ? "Copied" : "Copy failed";
    window.setTimeout(() => (button.textContent = "Copy"), 1500);
  });
}
