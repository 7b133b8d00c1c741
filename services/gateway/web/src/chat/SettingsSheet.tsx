/** Settings of this browser: how answers are sampled, the theme, the key. */
import { forgetKey, hasKey, askForKey } from "../api/key";
import { Dialog } from "../ui/Dialog";
import { Icon, type IconName } from "../ui/icons";
import { theme, type Theme } from "../ui/theme";
import { DEFAULTS, settings, type ChatSettings } from "./settings";
import * as store from "./store";

const THEMES: { value: Theme; label: string; icon: IconName }[] = [
  { value: "light", label: "Light", icon: "sun" },
  { value: "auto", label: "Auto", icon: "auto" },
  { value: "dark", label: "Dark", icon: "moon" },
];

export function SettingsSheet({ onClose }: { onClose: () => void }) {
  return (
    <Dialog title="Settings" onClose={onClose} isSheet>
      <div class="stack settings">
        <ThemeChoice />
        <Sampling />
        <Key />
        <Stored onClose={onClose} />
      </div>
    </Dialog>
  );
}

function ThemeChoice() {
  return (
    <fieldset class="segmented">
      <legend>Theme</legend>
      {THEMES.map(({ value, label, icon }) => (
        <label key={value}>
          <input type="radio" name="theme" checked={theme.value === value} onChange={() => (theme.value = value)} />
          <span>
            <Icon name={icon} size={16} /> {label}
          </span>
        </label>
      ))}
    </fieldset>
  );
}

function Sampling() {
  const { temperature, topK, maxTokens, systemPrompt } = settings.value;
  const set = (part: Partial<ChatSettings>): void => {
    settings.value = { ...settings.value, ...part };
  };
  return (
    <>
      <Slider
        label="Temperature"
        hint="0 always takes the likeliest token; higher is more varied."
        max={2}
        step={0.05}
        value={temperature}
        onChange={(value) => set({ temperature: value })}
      />
      <Slider
        label="Top-k"
        hint="Choose among this many likeliest tokens. 0: among all."
        max={200}
        step={1}
        value={topK}
        onChange={(value) => set({ topK: value })}
      />
      <label class="field">
        <span>Most tokens an answer</span>
        <input
          type="number"
          inputmode="numeric"
          min={1}
          placeholder="What the context leaves"
          value={maxTokens ?? ""}
          onChange={(event) => set({ maxTokens: wholeOrNull(event.currentTarget.value) })}
        />
      </label>
      <label class="field">
        <span>System prompt</span>
        <textarea
          rows={3}
          placeholder="None"
          value={systemPrompt}
          onChange={(event) => set({ systemPrompt: event.currentTarget.value })}
        />
      </label>
      <button type="button" class="link" onClick={() => (settings.value = DEFAULTS)}>
        Back to the defaults
      </button>
    </>
  );
}

interface SliderProps {
  label: string;
  hint: string;
  max: number;
  step: number;
  value: number;
  onChange: (value: number) => void;
}

function Slider({ label, hint, max, step, value, onChange }: SliderProps) {
  return (
    <label class="field">
      <span class="field-line">
        {label} <span class="field-value">{value}</span>
      </span>
      <input
        type="range"
        aria-label={label}
        min={0}
        max={max}
        step={step}
        value={value}
        onInput={(event) => onChange(Number(event.currentTarget.value))}
      />
      <small>{hint}</small>
    </label>
  );
}

function Key() {
  return (
    <section class="setting">
      <h3>API key</h3>
      <p class="muted">{hasKey.value ? "A key is kept in this browser." : "None is kept. The server asks when it needs one."}</p>
      <div class="row">
        <button type="button" class="button small" onClick={() => void askForKey(true)}>
          {hasKey.value ? "Change" : "Enter a key"}
        </button>
        {hasKey.value && (
          <button type="button" class="button small" onClick={forgetKey}>
            Forget
          </button>
        )}
      </div>
    </section>
  );
}

function Stored({ onClose }: { onClose: () => void }) {
  const num = store.conversations.value.length;
  const clear = (): void => {
    if (!window.confirm(`Delete all ${num} conversations from this browser?`)) return;
    void store.removeAll();
    onClose();
  };
  return (
    <section class="setting">
      <h3>Conversations</h3>
      <p class="muted">{num} kept in this browser, nowhere else.</p>
      <button type="button" class="button small danger" disabled={num === 0} onClick={clear}>
        Delete all
      </button>
    </section>
  );
}

function wholeOrNull(text: string): number | null {
  const value = Math.floor(Number(text));
  return text.trim() && value >= 1 ? value : null;
}
