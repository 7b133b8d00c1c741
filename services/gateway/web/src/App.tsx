/** The frame around the three pages: header, dialogs, notes. */
import { useSignal, type Signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { ChatPage } from "./chat/ChatPage";
import { SettingsSheet } from "./chat/SettingsSheet";
import * as store from "./chat/store";
import { ModelsPage } from "./models/ModelsPage";
import { TrainPage } from "./train/TrainPage";
import { Icon, Mark } from "./ui/icons";
import { KeyDialog } from "./ui/KeyDialog";
import { follow, page, PAGES } from "./ui/router";
import { Toasts } from "./ui/toast";
import "./ui/theme";

export function App() {
  const isDrawerOpen = useSignal(false);
  const isSettingsOpen = useSignal(false);
  useEffect(() => void store.load(), []);
  useEffect(() => {
    const label = PAGES.find((entry) => entry.page === page.value)?.label ?? "";
    document.title = page.value === "chat" ? (store.openConversation.value?.title ?? "nanochat") : `${label} · nanochat`;
  }, [page.value, store.openConversation.value?.title]);
  return (
    <div class="shell">
      <Header isDrawerOpen={isDrawerOpen} isSettingsOpen={isSettingsOpen} />
      {page.value === "chat" && <ChatPage isDrawerOpen={isDrawerOpen} />}
      {page.value === "train" && <TrainPage />}
      {page.value === "models" && <ModelsPage />}
      {isSettingsOpen.value && <SettingsSheet onClose={() => (isSettingsOpen.value = false)} />}
      <KeyDialog />
      <Toasts />
    </div>
  );
}

function Header({ isDrawerOpen, isSettingsOpen }: { isDrawerOpen: Signal<boolean>; isSettingsOpen: Signal<boolean> }) {
  const isChat = page.value === "chat";
  return (
    <header class="header">
      {isChat && (
        <button
          type="button"
          class="icon-button only-phone"
          aria-label="Conversations"
          aria-expanded={isDrawerOpen.value}
          onClick={() => (isDrawerOpen.value = !isDrawerOpen.value)}
        >
          <Icon name="menu" />
        </button>
      )}
      <a class="brand" href="/" onClick={follow} aria-label="nanochat">
        <Mark />
        <span class="brand-name">nanochat</span>
      </a>
      <nav class="tabs" aria-label="Pages">
        {PAGES.map((entry) => (
          <a
            key={entry.page}
            href={entry.page === "chat" && store.openId.value ? `/#c=${store.openId.value}` : entry.path}
            aria-current={entry.page === page.value ? "page" : undefined}
            onClick={follow}
          >
            {entry.label}
          </a>
        ))}
      </nav>
      <div class="header-end">
        {isChat && (
          <button type="button" class="icon-button only-phone" aria-label="New chat" onClick={() => store.open(null)}>
            <Icon name="plus" />
          </button>
        )}
        <button
          type="button"
          class="icon-button"
          aria-label="Settings"
          title="Settings"
          onClick={() => (isSettingsOpen.value = true)}
        >
          <Icon name="settings" />
        </button>
      </div>
    </header>
  );
}
