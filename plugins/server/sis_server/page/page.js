// A chat over /v1/chat/completions. The messages are kept in this browser and nowhere else.

import { events } from "./events.js";
import * as history from "./history.js";
import { markdown } from "./markdown.js";
import { add, choose, newChat, path, siblings } from "./tree.js";

const $ = (id) => document.getElementById(id);
const SETTINGS = "sis.settings";
const state = { chat: newChat(), running: null, edited: null };
const settings = read(SETTINGS, {
  system: "", colours: false, maxTokens: "", seed: "", key: "", tools: "", model: "", samplers: {},
});
const messages = () => path(state.chat);

function read(name, otherwise) {
  try {
    return { ...otherwise, ...JSON.parse(localStorage.getItem(name)) };
  } catch {
    return otherwise;
  }
}

const save = () => localStorage.setItem(SETTINGS, JSON.stringify(settings));

async function keep() {
  const { chat } = state;
  if (!chat.nodes.length) return;
  chat.updated = Date.now();
  chat.title ||= chat.nodes[0].content.slice(0, 60);
  try {
    await history.keep(chat);
  } catch { // a private window: the chat lasts as long as the page
    return;
  }
  listed();
}

function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in node) node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

const headers = () => ({
  "content-type": "application/json",
  ...(settings.key ? { authorization: `Bearer ${settings.key}` } : {}),
});

// What is shown

function article(message) {
  const node = element("article", { className: message.role });
  if (message.reasoning) {
    const open = state.running?.message === message && !message.content;
    node.append(element("details", { open }, element("summary", {}, "Thought"), element("div", {}, message.reasoning)));
  }
  node.append(body(message));
  for (const call of message.calls ?? []) node.append(called(call));
  if (message.error) node.append(element("div", { className: "error", role: "alert" }, message.error));
  if (!state.running && message.calls?.length && message.id === state.chat.leaf) node.append(results(message));
  node.append(under(message));
  return node;
}

function called({ name, args }) {
  let shown = args;
  try {
    shown = JSON.stringify(JSON.parse(args), null, 2);
  } catch { /* still being written */ }
  return element("div", { className: "call" }, element("b", {}, name), element("pre", {}, shown));
}

// Nothing here runs a tool: a person says what it gave.
function results(message) {
  const fields = message.calls.map(({ name }) => element("textarea", { rows: 1, placeholder: `What ${name} gives` }));
  const form = element("form", { className: "results" }, ...fields, element("button", { type: "submit" }, "Answer"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    let parent = message.id;
    message.calls.forEach((call, i) => {
      parent = add(state.chat, parent, { role: "tool", content: fields[i].value, call: call.id }).id;
    });
    reply(parent);
  });
  return form;
}

function body(message) {
  const node = element("div", { className: "body" });
  if (message.role !== "assistant") node.append(message.content);
  else if (settings.colours && message.tokens?.length) node.append(coloured(message));
  else node.append(...markdown(message.content));
  if (state.running?.message === message) (node.lastElementChild ?? node).classList.add("writing");
  return node;
}

function coloured({ content, tokens, figures }) {
  const node = element("div", { className: "tokens" });
  const ended = figures?.reason === "stop" && !content.endsWith(tokens.at(-1).token); // the last is no text
  for (const { token, logprob, top } of ended ? tokens.slice(0, -1) : tokens) {
    const percent = (value) => `${(100 * Math.exp(value)).toFixed(1)} %`;
    const others = (top ?? []).map((other) => `${JSON.stringify(other.token)} ${percent(other.logprob)}`).join("\n");
    const span = element("span", { title: `${percent(logprob)}\n\n${others}` }, token);
    span.style.setProperty("--doubt", (1 - Math.exp(logprob)).toFixed(3));
    node.append(span);
  }
  return node;
}

function under(message) {
  const node = element("div", { className: "under" });
  if (state.running) return node;
  const action = (label, act, more = {}) => node.append(element("button", { type: "button", onclick: act, ...more }, label));
  const others = siblings(state.chat, message), at = others.indexOf(message);
  if (others.length > 1) {
    const turn = (step) => () => (choose(state.chat, others[at + step]), keep(), show());
    action("‹", turn(-1), { disabled: at === 0, title: "The branch before" });
    node.append(element("span", { className: "branch" }, `${at + 1} / ${others.length}`));
    action("›", turn(1), { disabled: at === others.length - 1, title: "The next branch" });
  }
  action("Copy", () => navigator.clipboard?.writeText(message.content));
  if (message.role === "user") action("Edit", () => edit(message));
  if (message.role === "assistant") action("Again", () => reply(message.parent));
  if (message.figures) node.append(element("span", {}, figures(message.figures)));
  return node;
}

function figures({ first, seconds, usage, reason, spent }) {
  const rate = usage.completion_tokens > 1 && seconds > first ? (usage.completion_tokens - 1) / (seconds - first) : null;
  const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
  return [
    `${usage.completion_tokens} tokens`,
    rate && `${rate.toFixed(1)} a second`,
    `first after ${first.toFixed(2)} s${spent ? `: ${parts(spent)}` : ""}`,
    `prompt ${usage.prompt_tokens}, ${cached} of it known`,
    reason === "length" && "cut at the limit",
  ].filter(Boolean).join(" · ");
}

const parts = ({ queue, prefill }) => `${queue.toFixed(2)} waiting, ${prefill.toFixed(2)} with the prompt`;

// Where the server says that the time to the first token went.
async function spentOn(id) {
  try {
    const response = await fetch(`/traces/${id}`, { headers: headers() });
    const [text] = response.ok ? (await response.json()).texts : [];
    return text?.prefill == null ? null : { queue: text.queue, prefill: text.prefill };
  } catch {
    return null;
  }
}

function show() {
  const chat = $("chat");
  const atEnd = chat.scrollHeight - chat.scrollTop - chat.clientHeight < 80;
  const shown = messages();
  if (!shown.length) {
    const hint = "Enter sends, Shift+Enter begins a line, Esc stops. What you say stays on this machine.";
    chat.replaceChildren(element("div", { className: "hello" }, element("b", {}, "What shall we talk about?"), hint));
    return;
  }
  chat.replaceChildren(...shown.map(article));
  if (atEnd) chat.scrollTop = chat.scrollHeight;
}

let due = false;
function showLast() { // once a frame, however many tokens come
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    const chat = $("chat"), last = state.running?.message;
    if (!last) return;
    const atEnd = chat.scrollHeight - chat.scrollTop - chat.clientHeight < 120;
    chat.lastElementChild?.replaceWith(article(last));
    if (atEnd) chat.scrollTop = chat.scrollHeight;
  });
}

// What is asked

function request(parent) {
  const own = Object.fromEntries(Object.entries(settings.samplers).filter(([, value]) => value !== ""));
  const tools = settings.tools.trim() ? JSON.parse(settings.tools) : null;
  return {
    messages: [...(settings.system ? [{ role: "system", content: settings.system }] : []), ...said(parent)],
    stream: true,
    stream_options: { include_usage: true },
    ...(settings.model ? { model: settings.model } : {}),
    ...(tools ? { tools } : {}),
    ...(settings.colours ? { logprobs: true, top_logprobs: 5 } : {}),
    ...(settings.maxTokens ? { max_tokens: Number(settings.maxTokens) } : {}),
    ...(settings.seed !== "" ? { seed: Number(settings.seed) } : {}),
    ...own,
  };
}

// The messages up to a node, as the API has them.
function said(parent) {
  return path({ ...state.chat, leaf: parent }).map(({ role, content, calls, call }) => ({
    role,
    content,
    ...(call ? { tool_call_id: call } : {}),
    ...(calls?.length
      ? { tool_calls: calls.map(({ id, name, args }) => ({ id, type: "function", function: { name, arguments: args } })) }
      : {}),
  }));
}

// Another reply to the message of a node.
async function reply(parent) {
  if (state.running) return;
  const { chat } = state;
  const message = add(chat, parent, { role: "assistant", content: "", reasoning: "", tokens: [], calls: [] });
  const abort = new AbortController(), began = performance.now();
  state.running = { message, abort };
  busy(true);
  show();
  let first = null, reason = null, usage = null;
  try {
    const response = await fetch("/v1/chat/completions", {
      method: "POST", headers: headers(), body: JSON.stringify(request(parent)), signal: abort.signal,
    });
    if (!response.ok) throw new Error(await problem(response));
    for await (const chunk of events(response)) {
      if (chunk.error) throw new Error(chunk.error.message);
      usage = chunk.usage ?? usage;
      const choice = chunk.choices?.[0];
      if (!choice) continue;
      const { content, reasoning_content: thought, tool_calls: calls } = choice.delta;
      if ((content || thought || calls) && first === null) first = (performance.now() - began) / 1000;
      message.content += content ?? "";
      message.reasoning += thought ?? "";
      for (const { index, id, function: part } of calls ?? []) {
        const call = (message.calls[index] ??= { id, name: part.name, args: "" });
        call.args += part.arguments ?? "";
      }
      for (const entry of choice.logprobs?.content ?? []) {
        message.tokens.push({ token: entry.token, logprob: entry.logprob, top: entry.top_logprobs });
      }
      reason = choice.finish_reason ?? reason;
      if (state.chat === chat) showLast();
    }
    const seconds = (performance.now() - began) / 1000;
    const spent = await spentOn(response.headers.get("x-request-id"));
    if (usage) message.figures = { first: first ?? 0, seconds, usage, reason, spent };
  } catch (error) {
    if (error.name !== "AbortError") message.error = error.message;
    else if (!message.content) message.error = "Stopped.";
  }
  state.running = null;
  busy(false);
  await keep();
  show();
}

async function problem(response) {
  if (response.status === 401) askForKey();
  try {
    return (await response.json()).error.message;
  } catch {
    return `The server answered ${response.status}.`;
  }
}

function send() {
  const text = $("text").value.trim();
  if (!text || state.running) return;
  $("text").value = "";
  const parent = state.edited ? state.edited.parent : state.chat.leaf;
  state.edited = null;
  reply(add(state.chat, parent, { role: "user", content: text }).id);
}

// What is sent next stands beside this message, which stays.
function edit(message) {
  $("text").value = message.content;
  state.edited = message;
  $("text").focus();
}

const stop = () => state.running?.abort.abort();

function open(chat) {
  stop();
  Object.assign(state, { chat, edited: null });
  show();
  listed();
  $("text").focus();
}

const fresh = () => open(newChat());

// The list of chats
async function listed() {
  let chats = [];
  try {
    chats = await history.all();
  } catch { /* nothing is kept here */ }
  $("chats").replaceChildren(...chats.map((chat) => {
    const title = element("button", { type: "button", className: "title", onclick: () => open(chat) }, chat.title);
    if (chat.id === state.chat.id) title.setAttribute("aria-current", "true");
    const gone = element("button", { type: "button", title: "Delete this chat", onclick: () => remove(chat) }, "×");
    return element("li", {}, title, gone);
  }));
}

async function remove(chat) {
  await history.forget(chat.id);
  if (chat.id === state.chat.id) fresh();
  else listed();
}

function exported() {
  const data = new Blob([JSON.stringify({ system: settings.system, chat: state.chat }, null, 1)]);
  const link = element("a", { href: URL.createObjectURL(data), download: "chat.json" });
  link.click();
  URL.revokeObjectURL(link.href);
}

// Options

function busy(running) {
  $("send").hidden = running;
  $("stop").hidden = !running;
}

function toggleOptions(open = $("options").hidden) {
  $("options").hidden = !open;
  $("options-button").setAttribute("aria-expanded", String(open));
  if (open) $("system").focus();
}

function toggleChats(open = $("history").hidden) {
  $("history").hidden = !open;
  $("chats-button").setAttribute("aria-expanded", String(open));
}

function askForKey() {
  $("key-label").hidden = false;
  toggleOptions(true);
  $("key").focus();
}

function bind(id, name, property = "value") {
  const field = $(id);
  field[property] = settings[name];
  field.addEventListener("change", () => {
    settings[name] = field[property];
    save();
    if (name === "colours") show();
    if (name === "key" || name === "model") about();
  });
}

function samplerField({ name, sampler, type, default: standard, on, help, low, high }) {
  const flag = type === "boolean";
  const field = element("input", { type: flag ? "checkbox" : "number", placeholder: on ? String(standard) : "off" });
  if (!flag) {
    field.step = type === "integer" ? "1" : "any";
    if (low !== null) field.min = low;
    if (high !== null) field.max = high;
    field.value = settings.samplers[name] ?? "";
  } else field.checked = settings.samplers[name] ?? false;
  field.addEventListener("change", () => {
    if (flag) settings.samplers[name] = field.checked || "";
    else settings.samplers[name] = field.value === "" ? "" : Number(field.value);
    save();
  });
  return element("label", { className: "sampler", title: `${sampler}: ${help}` }, name, field);
}

async function about() {
  try {
    const models = await fetch("/v1/models", { headers: headers() });
    if (!models.ok) return void (await problem(models));
    const names = (await models.json()).data.map(({ id }) => id);
    if (!names.includes(settings.model)) settings.model = "";
    $("model-choice").replaceChildren(...names.map((name) => element("option", { value: name }, name)));
    $("model-choice").value = settings.model || names[0];
    $("model-label").hidden = names.length < 2;
    const asked = settings.model ? `?model=${encodeURIComponent(settings.model)}` : "";
    const response = await fetch(`/props${asked}`, { headers: headers() });
    if (!response.ok) return void (await problem(response));
    const props = await response.json();
    $("model").textContent = props.model;
    document.title = props.model;
    $("about").textContent = `${props.backend} · context of ${props.n_ctx.toLocaleString("en")} tokens`;
    const known = props.sampler_options.filter((option) => option.name !== "compact_json");
    const shown = [...known.filter((option) => option.on), ...known.filter((option) => !option.on)];
    $("samplers").replaceChildren(...shown.map(samplerField));
  } catch {
    $("about").textContent = "The server does not answer.";
  }
}

bind("system", "system");
bind("tools", "tools");
bind("model-choice", "model");
bind("key", "key");
bind("max-tokens", "maxTokens");
bind("seed", "seed");
bind("colours", "colours", "checked");
if (settings.key) $("key-label").hidden = false;
$("ask").addEventListener("submit", (event) => (event.preventDefault(), send()));
$("stop").addEventListener("click", stop);
$("new").addEventListener("click", fresh);
$("export").addEventListener("click", exported);
$("options-button").addEventListener("click", () => toggleOptions());
$("chats-button").addEventListener("click", () => toggleChats());
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    send();
  }
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape") state.running ? stop() : (toggleOptions(false), toggleChats(false));
  else if (event.altKey && event.code === "KeyN") fresh();
  else if (event.altKey && event.code === "KeyO") toggleOptions();
  else if (event.altKey && event.code === "KeyC") toggleChats();
});
async function start() {
  about();
  show();
  try {
    const [last] = await history.all();
    if (last && !state.chat.nodes.length) open(last);
  } catch { /* nothing is kept here */ }
}
start();
