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

/** Handed over at once, not when the page next has time: it may be about to be left. */
export async function save(conversation: Conversation): Promise<void> {
  const transaction = (await open())?.transaction(STORE, "readwrite");
  if (!transaction) return;
  void transaction.store.put(conversation);
  transaction.commit();
  await transaction.done;
}

export async function remove(id: string): Promise<void> {
  await (await open())?.delete(STORE, id);
}

export async function removeAll(): Promise<void> {
  await (await open())?.clear(STORE);
}
