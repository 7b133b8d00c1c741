/** What the user said, as plain text, and its editing. */
import { useEffect, useRef, useState } from "preact/hooks";
import { Icon } from "../ui/icons";
import { edit } from "./answering";
import { fitHeight } from "./Composer";
import type { UserMessage as Message } from "./conversation";
import { CopyButton } from "./CopyButton";

interface Props {
  conversationId: string;
  index: number;
  message: Message;
}

export function UserMessage({ conversationId, index, message }: Props) {
  const [isEditing, setEditing] = useState(false);
  if (isEditing) {
    return (
      <Editor
        text={message.content}
        onCancel={() => setEditing(false)}
        onSave={(text) => {
          setEditing(false);
          edit(conversationId, index, text);
        }}
      />
    );
  }
  return (
    <article class="message user" aria-label="You">
      <div class="bubble">{message.content}</div>
      <div class="actions">
        <CopyButton text={message.content} />
        <button type="button" class="icon-button" aria-label="Edit" title="Edit" onClick={() => setEditing(true)}>
          <Icon name="edit" size={16} />
        </button>
      </div>
    </article>
  );
}

function Editor({ text, onSave, onCancel }: { text: string; onSave: (text: string) => void; onCancel: () => void }) {
  const [draft, setDraft] = useState(text);
  const area = useRef<HTMLTextAreaElement>(null);
  useEffect(() => {
    area.current?.focus();
    area.current?.setSelectionRange(text.length, text.length);
  }, []);
  useEffect(() => fitHeight(area.current), [draft]);
  const save = (): void => {
    if (draft.trim()) onSave(draft.trim());
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.key === "Escape") {
      event.stopPropagation();
      onCancel();
    } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      save();
    }
  };
  return (
    <article class="message user is-editing">
      <div class="editor">
        <textarea
          ref={area}
          aria-label="Edit message"
          value={draft}
          onInput={(event) => setDraft(event.currentTarget.value)}
          onKeyDown={onKeyDown}
        />
        <div class="row-end">
          <button type="button" class="button small" onClick={onCancel}>
            Cancel
          </button>
          <button type="button" class="button small primary" disabled={!draft.trim()} onClick={save}>
            Send
          </button>
        </div>
      </div>
    </article>
  );
}
