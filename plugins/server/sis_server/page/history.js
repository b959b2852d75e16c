// Chats in this browser's IndexedDB, and nowhere else.

const asked = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

let opened = null;
function chats(mode) {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open("sis", 1);
    request.onupgradeneeded = () => request.result.createObjectStore("chats", { keyPath: "id" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return opened.then((database) => database.transaction("chats", mode).objectStore("chats"));
}

// All, the newest first.
export async function all() {
  const found = await asked((await chats("readonly")).getAll());
  return found.sort((one, other) => other.updated - one.updated);
}

export const keep = async (chat) => asked((await chats("readwrite")).put(structuredClone(chat)));
export const forget = async (id) => asked((await chats("readwrite")).delete(id));
