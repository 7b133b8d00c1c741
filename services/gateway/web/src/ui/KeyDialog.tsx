/** Asks for the API key when the server wants one. */
import { useState } from "preact/hooks";
import { keyPrompt, storeKey } from "../api/key";
import { Dialog } from "./Dialog";

export function KeyDialog() {
  const [key, setKey] = useState("");
  const [remember, setRemember] = useState(false);
  const prompt = keyPrompt.value;
  if (!prompt) return null;
  const submit = (event: Event): void => {
    event.preventDefault();
    if (!key.trim()) return;
    storeKey(key.trim(), remember);
    setKey("");
    prompt.answer(true);
  };
  return (
    <Dialog title="API key" onClose={() => prompt.answer(false)}>
      <form class="stack" onSubmit={submit}>
        <p class="muted">
          {prompt.rejected
            ? "This server does not know that key. Check it and enter it again."
            : "This server asks for a key. It is printed where the server was set up, or given by whoever runs it."}
        </p>
        <label class="field">
          <span>Key</span>
          <input
            type="password"
            autocomplete="off"
            spellcheck={false}
            value={key}
            onInput={(event) => setKey(event.currentTarget.value)}
            autofocus
          />
        </label>
        <label class="check">
          <input type="checkbox" checked={remember} onChange={(event) => setRemember(event.currentTarget.checked)} />
          <span>Remember on this computer</span>
        </label>
        <div class="row-end">
          <button type="button" class="button" onClick={() => prompt.answer(false)}>
            Not now
          </button>
          <button type="submit" class="button primary" disabled={!key.trim()}>
            Continue
          </button>
        </div>
      </form>
    </Dialog>
  );
}
