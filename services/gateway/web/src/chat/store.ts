/** The conversations of this browser as signals, and which one is open. The address names it (#c=ID), so that a
 * reload and the back button find it again. Changes are written to the database, a few times a second at most. */
import { computed, effect, signal } from "@preact/signals";
import { fragment, go, page } from "../ui/router";
import type { Conversation } from "./conversation";
import * as database from "./database";

const SAVE_EVERY_MS = 300;

export const conversations = signal<Conversation[]>([]);
export const isLoaded = signal(false);
export const openId = signal<string | null>(null);
export const openConversation = computed(() => find(openId.value));

// The other pages use the fragment for their own things; the open conversation stays open meanwhile.
effect(() => {
  if (page.value === "chat") openId.value = /^c=(\w+)$/.exec(fragment.value)?.[1] ?? null;
});

/** Conversations that were written a moment ago, and whether they have changed since. */
const recent = new Map<string, { timer: number; isChanged: boolean }>();

export function find(id: string | null): Conversation | undefined {
  return conversations.value.find((conversation) => conversation.id === id);
}

export async function load(): Promise<void> {
  conversations.value = await database.loadAll();
  if (openId.value && !find(openId.value)) open(null);
  isLoaded.value = true;
}

/** Open a conversation, or null for a new one. */
export function open(id: string | null): void {
  if (id === openId.value) return;
  if (page.value === "chat") go(id ? `/#c=${id}` : "/");
  else openId.value = id;
}

/** Add a conversation, or replace the one with its id; the newest stands first. */
export function put(conversation: Conversation): void {
  const others = conversations.value.filter(({ id }) => id !== conversation.id);
  const index = others.findIndex(({ updatedAt }) => updatedAt <= conversation.updatedAt);
  others.splice(index < 0 ? others.length : index, 0, conversation);
  conversations.value = others;
  const written = recent.get(conversation.id);
  if (written) written.isChanged = true;
  else saveNow(conversation.id);
}

/** Apply a change to a conversation that is still there; a deleted one stays deleted. */
export function change(id: string, step: (conversation: Conversation) => Conversation): void {
  const conversation = find(id);
  if (conversation) put(step(conversation));
}

export function rename(id: string, title: string): void {
  if (!title.trim()) return;
  change(id, (conversation) => ({ ...conversation, title: title.trim() }));
  saveNow(id);
}

export async function remove(id: string): Promise<void> {
  conversations.value = conversations.value.filter((conversation) => conversation.id !== id);
  if (openId.value === id) open(null);
  await database.remove(id);
}

export async function removeAll(): Promise<void> {
  conversations.value = [];
  open(null);
  await database.removeAll();
}

/** Write a conversation without waiting for its turn. */
export function saveNow(id: string): void {
  window.clearTimeout(recent.get(id)?.timer);
  const timer = window.setTimeout(() => {
    const isChanged = recent.get(id)?.isChanged;
    recent.delete(id);
    if (isChanged) saveNow(id);
  }, SAVE_EVERY_MS);
  recent.set(id, { timer, isChanged: false });
  const conversation = find(id);
  if (conversation) void database.save(conversation);
}

window.addEventListener("pagehide", () => {
  for (const [id, { isChanged }] of recent) if (isChanged) saveNow(id);
});
