/** The API key: where it is kept, and the one question for it that all waiting requests share. */
import { signal } from "@preact/signals";

const NAME = "nanochat.key";

export interface KeyPrompt {
  rejected: boolean;
  answer: (given: boolean) => void;
}

/** Set while the page asks for a key. */
export const keyPrompt = signal<KeyPrompt | null>(null);
export const hasKey = signal(currentKey() !== null);

let asking: Promise<boolean> | null = null;
let wasDismissed = false;

export function currentKey(): string | null {
  return sessionStorage.getItem(NAME) ?? localStorage.getItem(NAME);
}

/** Keep the key for this tab, or on this computer until it is forgotten. */
export function storeKey(key: string, remember: boolean): void {
  forgetKey();
  (remember ? localStorage : sessionStorage).setItem(NAME, key);
  hasKey.value = true;
}

export function forgetKey(): void {
  sessionStorage.removeItem(NAME);
  localStorage.removeItem(NAME);
  hasKey.value = false;
}

/**
 * Ask for a key; true once one was given. Requests that meet a 401 share one question, and once it was waved away
 * only a person's own click (`insist`) brings it back, so that background requests do not nag.
 */
export function askForKey(insist = false): Promise<boolean> {
  if (asking) return asking;
  if (wasDismissed && !insist) return Promise.resolve(false);
  asking = new Promise((resolve) => {
    keyPrompt.value = {
      rejected: currentKey() !== null && !insist,
      answer: (given) => {
        keyPrompt.value = null;
        asking = null;
        wasDismissed = !given;
        resolve(given);
      },
    };
  });
  return asking;
}
