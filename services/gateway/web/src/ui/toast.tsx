/** Short notes at the edge of the window, read out to those who do not see them. */
import { signal } from "@preact/signals";

interface Toast {
  id: number;
  text: string;
  isError: boolean;
}

const SHOWN_MS = 5000;
const toasts = signal<Toast[]>([]);
let count = 0;

export function toast(text: string, isError = false): void {
  const id = count++;
  toasts.value = [...toasts.value, { id, text, isError }];
  window.setTimeout(() => (toasts.value = toasts.value.filter((other) => other.id !== id)), SHOWN_MS);
}

export function Toasts() {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {toasts.value.map(({ id, text, isError }) => (
        <div key={id} class={isError ? "toast toast-error" : "toast"}>
          {text}
        </div>
      ))}
    </div>
  );
}
