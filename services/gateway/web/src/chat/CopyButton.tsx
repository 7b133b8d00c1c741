/** Copies a message and says that it did. */
import { useState } from "preact/hooks";
import { copyText } from "../ui/clipboard";
import { Icon } from "../ui/icons";

export function CopyButton({ text }: { text: string }) {
  const [isCopied, setCopied] = useState(false);
  const copy = async (): Promise<void> => {
    if (!(await copyText(text))) return;
    setCopied(true);
    window.setTimeout(() => setCopied(false), 1500);
  };
  const label = isCopied ? "Copied" : "Copy";
  return (
    <button type="button" class="icon-button" aria-label={label} title={label} onClick={() => void copy()}>
      <Icon name={isCopied ? "check" : "copy"} size={16} />
    </button>
  );
}
