/** The last lines of a job's log; stays at the end unless one scrolls up. */
import { useLayoutEffect, useRef } from "preact/hooks";

export function LogTail({ lines }: { lines: readonly string[] }) {
  const box = useRef<HTMLPreElement>(null);
  const isHeld = useRef(true);
  useLayoutEffect(() => {
    if (box.current && isHeld.current) box.current.scrollTop = box.current.scrollHeight;
  }, [lines]);
  const onScroll = (): void => {
    const element = box.current;
    if (element) isHeld.current = element.scrollHeight - element.scrollTop - element.clientHeight < 20;
  };
  return (
    <pre class="log" ref={box} onScroll={onScroll} tabIndex={0} aria-label="Log">
      {lines.length > 0 ? lines.join("\n") : "No log yet."}
    </pre>
  );
}
