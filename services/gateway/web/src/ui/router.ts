/** Which of the three pages is shown. Links between them change the address without loading anything anew. */
import { signal } from "@preact/signals";

export type Page = "chat" | "train" | "models";

export const PAGES: { page: Page; path: string; label: string }[] = [
  { page: "chat", path: "/", label: "Chat" },
  { page: "train", path: "/train", label: "Train" },
  { page: "models", path: "/models", label: "Models" },
];

export const page = signal<Page>(pageInAddress());
/** The part after #, which names what is open on a page. */
export const fragment = signal(location.hash.slice(1));

export function go(address: string): void {
  history.pushState(null, "", address);
  readAddress();
}

/** For links: follow them here unless the person asked for a new tab. */
export function follow(event: MouseEvent): void {
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.button !== 0) return;
  event.preventDefault();
  go((event.currentTarget as HTMLAnchorElement).getAttribute("href") ?? "/");
}

function readAddress(): void {
  page.value = pageInAddress();
  fragment.value = location.hash.slice(1);
}

function pageInAddress(): Page {
  return PAGES.find(({ path }) => path === location.pathname.replace(/(.)\/$/, "$1"))?.page ?? "chat";
}

window.addEventListener("popstate", readAddress);
