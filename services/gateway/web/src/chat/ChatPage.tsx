/** The chat page: conversations at the side, the open one in the middle, or what to do while there is no model. */
import { computed, type Signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { ApiError } from "../api/errors";
import { ErrorNote } from "../ui/ErrorNote";
import { usePolling } from "../ui/polling";
import { answering, stop } from "./answering";
import { Composer } from "./Composer";
import { FirstRun } from "./FirstRun";
import { refreshModel, serverState } from "./served";
import { Sidebar } from "./Sidebar";
import * as store from "./store";
import { Transcript } from "./Transcript";
import { Welcome } from "./Welcome";

const ASK_AGAIN_MS = 3000;
const ASK_WHEN_READY_MS = 30_000;

const isAnswering = computed(() => store.openId.value !== null && answering.value.has(store.openId.value));

export function ChatPage({ isDrawerOpen }: { isDrawerOpen: Signal<boolean> }) {
  const state = serverState.value;
  usePolling(refreshModel, state === "ready" ? ASK_WHEN_READY_MS : ASK_AGAIN_MS, [state === "ready"]);
  useEffect(() => {
    const stopOnEscape = (event: KeyboardEvent): void => {
      if (event.key === "Escape" && !document.querySelector("dialog[open]") && store.openId.value) stop(store.openId.value);
    };
    window.addEventListener("keydown", stopOnEscape);
    return () => window.removeEventListener("keydown", stopOnEscape);
  }, []);
  return (
    <div class="chat">
      <Sidebar isDrawerOpen={isDrawerOpen} />
      <main class="chat-main">
        <Conversation />
      </main>
    </div>
  );
}

function Conversation() {
  const state = serverState.value;
  const conversation = store.openConversation.value;
  if (!store.isLoaded.value || state === "asking") return <div class="fill" aria-busy="true" />;
  if (!conversation && state === "no-model") return <FirstRun />;
  return (
    <>
      {conversation ? <Transcript conversation={conversation} isAnswering={isAnswering.value} /> : <Welcome />}
      <div class="chat-foot">
        {state instanceof ApiError && <ErrorNote error={state} onRetry={() => void refreshModel()} />}
        {state === "no-model" && <p class="note">No model is served at the moment. Start a new chat to train one.</p>}
        <Composer isAnswering={isAnswering.value} />
      </div>
    </>
  );
}
