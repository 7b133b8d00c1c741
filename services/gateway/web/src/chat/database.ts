/** Conversations in the browser's IndexedDB. Where the browser refuses one (private windows), nothing is kept. */
import { openDB, type IDBPDatabase } from "idb";
import { restored, type Conversation } from "./conversation";

const STORE = "conversations";

let database: Promise<IDBPDatabase | null> | null = null;

function open(): Promise<IDBPDatabase | null> {
  database ??= openDB("nanochat", 1, {
    upgrade: (db) => void db.createObjectStore(STORE, { keyPath: "id" }),
  }).catch(() => null);
  return database;
}

/** All conversations, newest first. */
export async function loadAll(): Promise<Conversation[]> {
  const stored = (await (await open())?.getAll(STORE)) as Conversation[] | undefined;
  return (stored ?? []).map(restored).sort((a, b) => b.updatedAt - a.updatedAt);
}

export async function save(conversation: Conversation): Promise<void> {
  await (await open())?.put(STORE, conversation);
}

export async function remove(id: string): Promise<void> {
  await (await open())?.delete(STORE, id);
}

export async function removeAll(): Promise<void> {
  await (await open())?.clear(STORE);
}
