/** Ask again every so often, while the page is in sight. */
import { useEffect } from "preact/hooks";

/** Runs `ask` now and `intervalMs` after each answer; not while the tab is hidden. `ask` handles its own errors. */
export function usePolling(ask: () => Promise<void>, intervalMs: number, deps: readonly unknown[] = []): void {
  useEffect(() => {
    let timer = 0;
    let isOver = false;
    let isAsking = false;
    const turn = async (): Promise<void> => {
      if (isAsking) return;
      window.clearTimeout(timer);
      isAsking = true;
      if (!document.hidden) await ask();
      isAsking = false;
      if (!isOver) timer = window.setTimeout(() => void turn(), intervalMs);
    };
    const wake = (): void => {
      if (!document.hidden) void turn();
    };
    void turn();
    document.addEventListener("visibilitychange", wake);
    return () => {
      isOver = true;
      window.clearTimeout(timer);
      document.removeEventListener("visibilitychange", wake);
    };
  }, [intervalMs, ...deps]);
}
