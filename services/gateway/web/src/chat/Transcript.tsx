/** The messages of a conversation. Follows the answer as it grows, until the reader scrolls away from the end. */
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { Icon } from "../ui/icons";
import { AssistantMessage } from "./AssistantMessage";
import type { Conversation } from "./conversation";
import { UserMessage } from "./UserMessage";

const NEAR_END_PX = 40;

export function Transcript({ conversation, isAnswering }: { conversation: Conversation; isAnswering: boolean }) {
  const { id, messages, contextStart } = conversation;
  const { scroller, content, isAtEnd, toEnd } = useFollowedEnd(id, messages.length);
  return (
    <div class="transcript-frame">
      <div class="transcript" ref={scroller} tabIndex={-1}>
        <div class="column" ref={content}>
          {messages.map((message, index) => (
            <div key={message.id}>
              {index > 0 && index === contextStart && (
                <p class="forgotten">
                  <span>Context full: what is above is no longer seen</span>
                </p>
              )}
              {message.role === "user" ? (
                <UserMessage conversationId={id} index={index} message={message} />
              ) : (
                <AssistantMessage
                  conversationId={id}
                  index={index}
                  message={message}
                  isLast={index === messages.length - 1}
                />
              )}
            </div>
          ))}
        </div>
      </div>
      {!isAtEnd && (
        <button type="button" class="to-end" aria-label="To the end" onClick={toEnd}>
          <Icon name="down" />
        </button>
      )}
      <Announcer conversation={conversation} isAnswering={isAnswering} />
    </div>
  );
}

/** Says to a screen reader that an answer is on its way, and then the answer, once: not every token. */
function Announcer({ conversation, isAnswering }: { conversation: Conversation; isAnswering: boolean }) {
  const [said, setSaid] = useState("");
  const wasAnswering = useRef(isAnswering);
  useEffect(() => {
    const last = conversation.messages.at(-1);
    if (isAnswering) setSaid("Answering");
    else if (wasAnswering.current && last?.role === "assistant") setSaid(last.error?.message ?? last.content);
    wasAnswering.current = isAnswering;
  }, [isAnswering]);
  return (
    <div class="visually-hidden" aria-live="polite">
      {said}
    </div>
  );
}

/** Keeps the scroller at its end while its content grows; any scroll upwards lets go, coming back to the end holds. */
function useFollowedEnd(conversationId: string, numMessages: number) {
  const scroller = useRef<HTMLDivElement>(null);
  const content = useRef<HTMLDivElement>(null);
  const isHeld = useRef(true);
  const [isAtEnd, setAtEnd] = useState(true);

  const toEnd = (): void => {
    isHeld.current = true;
    setAtEnd(true);
    scroller.current?.scrollTo({ top: scroller.current.scrollHeight });
  };
  // A conversation opens at its end, and a message just sent is in sight.
  useLayoutEffect(toEnd, [conversationId, numMessages]);
  useEffect(() => {
    const box = scroller.current;
    if (!box || !content.current) return;
    let lastTop = box.scrollTop;
    const onScroll = (): void => {
      const isNearEnd = box.scrollHeight - box.scrollTop - box.clientHeight < NEAR_END_PX;
      if (isNearEnd) isHeld.current = true;
      else if (box.scrollTop < lastTop) isHeld.current = false;
      lastTop = box.scrollTop;
      setAtEnd(isNearEnd || isHeld.current);
    };
    const growth = new ResizeObserver(() => {
      if (isHeld.current) box.scrollTop = box.scrollHeight;
    });
    growth.observe(content.current);
    growth.observe(box);
    box.addEventListener("scroll", onScroll, { passive: true });
    return () => {
      growth.disconnect();
      box.removeEventListener("scroll", onScroll);
    };
  }, []);
  return { scroller, content, isAtEnd, toEnd };
}
