/** Where a message is written. Enter sends, Shift+Enter breaks the line; on a phone's keyboard Enter breaks the line. */
import { useEffect, useRef, useState } from "preact/hooks";
import { Icon } from "../ui/icons";
import { send, stop } from "./answering";
import { servedModel } from "./served";
import * as store from "./store";

const HAS_TOUCH_KEYBOARD = window.matchMedia("(hover: none) and (pointer: coarse)");

export function Composer({ isAnswering }: { isAnswering: boolean }) {
  const [text, setText] = useState("");
  const area = useRef<HTMLTextAreaElement>(null);
  const openId = store.openId.value;
  useEffect(() => {
    if (!HAS_TOUCH_KEYBOARD.matches) area.current?.focus();
  }, [openId]);
  useEffect(() => fitHeight(area.current), [text]);

  const submit = (event?: Event): void => {
    event?.preventDefault();
    if (isAnswering || !text.trim()) return;
    send(text.trim());
    setText("");
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || HAS_TOUCH_KEYBOARD.matches) return;
    submit(event);
  };
  return (
    <form class="composer" onSubmit={submit}>
      <div class="composer-box">
        <textarea
          ref={area}
          rows={1}
          aria-label="Message"
          placeholder="Ask something"
          value={text}
          onInput={(event) => setText(event.currentTarget.value)}
          onKeyDown={onKeyDown}
        />
        {isAnswering ? (
          <button
            type="button"
            class="send is-stop"
            aria-label="Stop"
            title="Stop (Esc)"
            onClick={() => openId && stop(openId)}
          >
            <Icon name="stop" size={20} />
          </button>
        ) : (
          <button type="submit" class="send" aria-label="Send" title="Send (Enter)" disabled={!text.trim()}>
            <Icon name="send" size={20} />
          </button>
        )}
      </div>
      <p class="composer-hint">
        <span>{servedModel.value?.nanochat?.checkpoint ?? servedModel.value?.id}</span>
        <span>Small models make mistakes</span>
      </p>
    </form>
  );
}

export function fitHeight(area: HTMLTextAreaElement | null): void {
  if (!area) return;
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight}px`;
}
