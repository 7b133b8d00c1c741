/** The icons, drawn on a 20 x 20 grid with one stroke. Always beside or inside something that has a name. */

const PATHS = {
  menu: "M3 5.5h14M3 10h14M3 14.5h9",
  plus: "M10 4v12M4 10h12",
  send: "M10 16V4.5M5 9l5-5 5 5",
  stop: "M6 6h8v8H6z",
  copy: "M7 7V4.5A1.5 1.5 0 0 1 8.5 3h7A1.5 1.5 0 0 1 17 4.5v7a1.5 1.5 0 0 1-1.5 1.5H13M4.5 7h7A1.5 1.5 0 0 1 13 8.5v7a1.5 1.5 0 0 1-1.5 1.5h-7A1.5 1.5 0 0 1 3 15.5v-7A1.5 1.5 0 0 1 4.5 7z",
  check: "M4 10.5l4 4 8-9",
  again: "M16 8A6.3 6.3 0 1 0 16.3 11.5M16.5 4v4h-4",
  edit: "M12.5 4.5l3 3L7 16H4v-3zM11 6l3 3",
  trash: "M4 6h12M8 6V3.5h4V6M5.5 6l.7 10.5h7.6L14.5 6M8.5 9v5M11.5 9v5",
  settings: "M3 6h6M13 6h4M3 14h3M10 14h7M9 6a2 2 0 1 0 4 0 2 2 0 1 0-4 0M6 14a2 2 0 1 0 4 0 2 2 0 1 0-4 0",
  search: "M9 4a5 5 0 1 0 0 10A5 5 0 0 0 9 4zM13 13l4 4",
  close: "M5 5l10 10M15 5L5 15",
  down: "M10 4v12M5 11l5 5 5-5",
  back: "M12 4l-6 6 6 6",
  more: "M4.5 10h.01M10 10h.01M15.5 10h.01",
  sun: "M10 6.5a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7zM10 2v1.5M10 16.5V18M2 10h1.5M16.5 10H18M4.3 4.3l1.1 1.1M14.6 14.6l1.1 1.1M4.3 15.7l1.1-1.1M14.6 5.4l1.1-1.1",
  moon: "M16.5 12.2A7 7 0 0 1 7.8 3.5a7 7 0 1 0 8.7 8.7z",
  auto: "M10 3a7 7 0 1 0 0 14 7 7 0 0 0 0-14zM10 3v14M10 6h4.5M10 9h6.5M10 12h6M10 15h3.5",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name, size = 18 }: { name: IconName; size?: number }) {
  return (
    <svg class={`icon icon-${name}`} viewBox="0 0 20 20" width={size} height={size} aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}

export function Mark({ size = 26 }: { size?: number }) {
  return (
    <svg class="mark" viewBox="0 0 32 32" width={size} height={size} aria-hidden="true">
      <path
        class="mark-bubble"
        d="M9 3h14a7 7 0 0 1 7 7v8a7 7 0 0 1-7 7h-8.6l-6.1 4.6a.8.8 0 0 1-1.3-.6V25.5A7 7 0 0 1 2 19v-9a7 7 0 0 1 7-7z"
      />
      <path class="mark-curve" d="M8 9.5c1.6 6.2 5.2 8.5 15 8.8" />
      <circle class="mark-dot" cx="23" cy="18.3" r="2.4" />
    </svg>
  );
}
