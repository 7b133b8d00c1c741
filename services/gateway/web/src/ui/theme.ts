/** Light, dark, or as the system has it; kept in this browser. */
import { effect, signal } from "@preact/signals";

export type Theme = "auto" | "light" | "dark";

const NAME = "nanochat.theme";
const SYSTEM_DARK = window.matchMedia("(prefers-color-scheme: dark)");

export const theme = signal<Theme>((localStorage.getItem(NAME) as Theme | null) ?? "auto");
const systemIsDark = signal(SYSTEM_DARK.matches);
SYSTEM_DARK.addEventListener("change", ({ matches }) => (systemIsDark.value = matches));

/** Counts the changes of the colours in force, for what paints on a canvas. */
export const paletteVersion = signal(0);

effect(() => {
  localStorage.setItem(NAME, theme.value);
  const isDark = theme.value === "dark" || (theme.value === "auto" && systemIsDark.value);
  document.documentElement.dataset["theme"] = isDark ? "dark" : "light";
  paletteVersion.value = paletteVersion.peek() + 1;
});

/** A colour of the style sheets as the canvas understands it. */
export function cssColor(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
