// A chat is a tree: who edits a message or asks again adds a branch, and the other stays. `leaf` is the end that is shown.

export const newChat = () => ({ id: crypto.randomUUID(), title: "", updated: Date.now(), nodes: [], leaf: null });

// The messages from the first to the leaf.
export function path(chat) {
  const found = [];
  for (let at = chat.leaf; at !== null; at = chat.nodes[at].parent) found.unshift(chat.nodes[at]);
  return found;
}

// Put a message after the node `parent` (null: first of all), and show it.
export function add(chat, parent, message) {
  const node = { ...message, id: chat.nodes.length, parent };
  chat.nodes.push(node);
  chat.leaf = node.id;
  return node;
}

// Those that stand in one place, the oldest first.
export const siblings = (chat, node) => chat.nodes.filter((other) => other.parent === node.parent);

// Show the branch of a node: on from it to the newest end.
export function choose(chat, node) {
  let end = node;
  for (let next = node; next; next = chat.nodes.findLast((other) => other.parent === end.id)) end = next;
  chat.leaf = end.id;
}
