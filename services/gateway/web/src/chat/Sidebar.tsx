/** Past conversations: beside the chat on a wide window, a drawer on a phone. */
import { useSignal, type Signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { Icon } from "../ui/icons";
import type { Conversation } from "./conversation";
import { answering, stop } from "./answering";
import * as store from "./store";

export function Sidebar({ isDrawerOpen }: { isDrawerOpen: Signal<boolean> }) {
  const query = useSignal("");
  const isOpen = isDrawerOpen.value;
  const panel = useRef<HTMLElement>(null);
  const close = (): void => {
    isDrawerOpen.value = false;
  };
  useEffect(() => {
    if (!isOpen) return;
    panel.current?.querySelector("button")?.focus();
    const closeOnEscape = (event: KeyboardEvent): void => {
      if (event.key === "Escape") close();
    };
    window.addEventListener("keydown", closeOnEscape);
    return () => window.removeEventListener("keydown", closeOnEscape);
  }, [isOpen]);

  const found = store.conversations.value.filter((conversation) => matches(conversation, query.value));
  return (
    <>
      {isOpen && <div class="scrim" onClick={close} />}
      <aside ref={panel} class={isOpen ? "sidebar is-open" : "sidebar"} aria-label="Conversations">
        <div class="sidebar-head">
          <button
            type="button"
            class="button new-chat"
            onClick={() => {
              store.open(null);
              close();
            }}
          >
            <Icon name="plus" /> New chat
          </button>
          {store.conversations.value.length > 0 && (
            <label class="search">
              <Icon name="search" size={16} />
              <input
                type="search"
                aria-label="Search conversations"
                placeholder="Search"
                value={query.value}
                onInput={(event) => (query.value = event.currentTarget.value)}
              />
            </label>
          )}
        </div>
        <ul class="conversations">
          {found.map((conversation) => (
            <Entry key={conversation.id} conversation={conversation} onOpened={close} />
          ))}
        </ul>
        {store.conversations.value.length === 0 && <p class="sidebar-empty">Conversations are kept in this browser only.</p>}
        {store.conversations.value.length > 0 && found.length === 0 && <p class="sidebar-empty">Nothing found.</p>}
      </aside>
    </>
  );
}

function Entry({ conversation, onOpened }: { conversation: Conversation; onOpened: () => void }) {
  const { id, title } = conversation;
  const [mode, setMode] = useState<"shown" | "renaming" | "deleting">("shown");
  const isOpen = store.openId.value === id;
  if (mode === "renaming") return <Renaming id={id} title={title} onDone={() => setMode("shown")} />;
  if (mode === "deleting") {
    return (
      <li class="entry is-deleting">
        <span>Delete for good?</span>
        <button
          type="button"
          class="button small danger"
          ref={(button) => button?.focus()}
          onClick={() => {
            stop(id);
            void store.remove(id);
          }}
        >
          Delete
        </button>
        <button type="button" class="button small" onClick={() => setMode("shown")}>
          Keep
        </button>
      </li>
    );
  }
  return (
    <li class={isOpen ? "entry is-current" : "entry"}>
      <button
        type="button"
        class="entry-title"
        aria-current={isOpen ? "true" : undefined}
        title={title}
        onClick={() => {
          store.open(id);
          onOpened();
        }}
      >
        {answering.value.has(id) && <i class="pulse" role="img" aria-label="Answering" />}
        <span>{title}</span>
      </button>
      <span class="entry-actions">
        <button type="button" class="icon-button" aria-label={`Rename ${title}`} onClick={() => setMode("renaming")}>
          <Icon name="edit" size={15} />
        </button>
        <button type="button" class="icon-button" aria-label={`Delete ${title}`} onClick={() => setMode("deleting")}>
          <Icon name="trash" size={15} />
        </button>
      </span>
    </li>
  );
}

function Renaming({ id, title, onDone }: { id: string; title: string; onDone: () => void }) {
  const [draft, setDraft] = useState(title);
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => field.current?.select(), []);
  const save = (): void => {
    store.rename(id, draft);
    onDone();
  };
  return (
    <li class="entry is-renaming">
      <input
        ref={field}
        aria-label="Title"
        value={draft}
        onInput={(event) => setDraft(event.currentTarget.value)}
        onBlur={save}
        onKeyDown={(event) => {
          if (event.key === "Enter") save();
          if (event.key === "Escape") onDone();
        }}
      />
    </li>
  );
}

function matches(conversation: Conversation, query: string): boolean {
  const wanted = query.trim().toLowerCase();
  return [conversation.title, ...conversation.messages.map(({ content }) => content)].some((text) =>
    text.toLowerCase().includes(wanted),
  );
}
