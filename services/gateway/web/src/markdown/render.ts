/**
 * Markdown to safe HTML. Written by a model, so nothing in it is trusted: raw HTML is shown as text, pictures are
 * shown as links (they would fetch from elsewhere), and DOMPurify has the last word over a short list of tags.
 */
import DOMPurify from "dompurify";
import { Marked, type Tokens } from "marked";
import type { ToolCall } from "../api/types";
import { segmentsOf } from "../chat/segments";

// A calculator call travels through the parser as its index between two private-use characters.
const OPEN = "\uE000";
const CLOSE = "\uE001";
const PRIVATE = /[\uE000\uE001]/g;

const ALLOWED_TAGS = [
  "a b blockquote br button code del div em h1 h2 h3 h4 h5 h6 hr i input li ol p pre s span strong sub sup",
  "table tbody td th thead tr ul",
].flatMap((names) => names.split(" "));
const ALLOWED_ATTR = ["href", "target", "rel", "class", "align", "start", "type", "disabled", "checked"];

export function renderMarkdown(content: string, calls: readonly ToolCall[]): string {
  const segments = segmentsOf(content, calls);
  const shown = segments.flatMap((segment) => (segment.type === "call" ? [segment.call] : []));
  let index = 0;
  const source = segments
    .map((segment) =>
      segment.type === "text" ? segment.text.replace(PRIVATE, "\uFFFD") : `${OPEN}${index++}${CLOSE}\n`,
    )
    .join("");
  const html = parserFor(shown).parse(source, { async: false });
  return DOMPurify.sanitize(html, { ALLOWED_TAGS, ALLOWED_ATTR, ALLOW_DATA_ATTR: false, ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i });
}

function parserFor(calls: readonly ToolCall[]): Marked {
  const asText = (text: string): string =>
    text.replace(/\uE000(\d+)\uE001/g, (_, index: string) => {
      const call = calls[Number(index)];
      return call ? `${call.expression}=${call.result ?? ""}` : "";
    });
  return new Marked({
    gfm: true,
    breaks: true,
    extensions: [
      {
        name: "call",
        level: "inline",
        start: (source) => source.indexOf(OPEN),
        tokenizer(source) {
          const match = /^\uE000(\d+)\uE001/.exec(source);
          return match ? { type: "call", raw: match[0], index: Number(match[1]) } : undefined;
        },
        renderer: (token) => callChip(calls[token["index"] as number]),
      },
    ],
    tokenizer: {
      // 3*4*5 is arithmetic and snake_case a name: no emphasis directly after a letter or digit.
      emStrong: (_source, _masked, previous) => (/[\p{L}\p{N}]/u.test(previous ?? "") ? undefined : false),
    },
    renderer: {
      html: ({ text }) => escape(asText(text)),
      code: ({ text, lang }) => codeBlock(asText(text), lang ?? ""),
      codespan: ({ text }) => `<code>${escape(asText(text))}</code>`,
      image: ({ href, text }) => anchor(href, escape(text || href)),
      link(token: Tokens.Link) {
        return anchor(token.href, this.parser.parseInline(token.tokens));
      },
    },
  });
}

function callChip(call: ToolCall | undefined): string {
  if (!call) return "";
  const result = call.result === null ? '<i class="calc-none">no result</i>' : `<b>${escape(call.result)}</b>`;
  return (
    `<span class="calc"><span class="calc-name">calculator: </span><code>${escape(call.expression)}</code>` +
    `<span class="calc-arrow"> → </span>${result}</span>`
  );
}

function codeBlock(text: string, language: string): string {
  const name = /^[\w+#.-]{1,20}/.exec(language)?.[0] ?? "";
  return (
    `<div class="code"><div class="code-head"><span>${escape(name)}</span>` +
    `<button type="button" class="code-copy">Copy</button></div><pre><code>${escape(text)}\n</code></pre></div>`
  );
}

function anchor(href: string, inner: string): string {
  return `<a href="${escape(href)}" target="_blank" rel="noopener noreferrer">${inner}</a>`;
}

function escape(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
