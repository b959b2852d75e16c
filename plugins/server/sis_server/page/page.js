// A chat over /v1/chat/completions. The messages are kept in this browser and nowhere else.

import { events } from "./events.js";
import { markdown } from "./markdown.js";

const $ = (id) => document.getElementById(id);
const STORE = "sis.chat", SETTINGS = "sis.settings";
const state = { messages: read(STORE, []), running: null, samplers: [] };
const settings = read(SETTINGS, { system: "", colours: false, maxTokens: "", seed: "", key: "", samplers: {} });

function read(name, otherwise) {
  try {
    const found = JSON.parse(localStorage.getItem(name));
    return Array.isArray(otherwise) ? found ?? otherwise : { ...otherwise, ...found };
  } catch {
    return otherwise;
  }
}

const save = () => {
  localStorage.setItem(STORE, JSON.stringify(state.messages));
  localStorage.setItem(SETTINGS, JSON.stringify(settings));
};

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

function article(message, index) {
  const node = element("article", { className: message.role });
  if (message.reasoning) {
    const open = state.running?.message === message && !message.content;
    node.append(element("details", { open }, element("summary", {}, "Thought"), element("div", {}, message.reasoning)));
  }
  node.append(body(message));
  if (message.error) node.append(element("div", { className: "error", role: "alert" }, message.error));
  node.append(under(message, index));
  return node;
}

function body(message) {
  const node = element("div", { className: "body" });
  if (message.role === "user") node.append(message.content);
  else if (settings.colours && message.tokens?.length) node.append(coloured(message.tokens));
  else node.append(...markdown(message.content));
  if (state.running?.message === message) (node.lastElementChild ?? node).classList.add("writing");
  return node;
}

function coloured(tokens) {
  const node = element("div", { className: "tokens" });
  for (const { token, logprob, top } of tokens) {
    const percent = (value) => `${(100 * Math.exp(value)).toFixed(1)} %`;
    const others = (top ?? []).map((other) => `${JSON.stringify(other.token)} ${percent(other.logprob)}`).join("\n");
    const span = element("span", { title: `${percent(logprob)}\n\n${others}` }, token);
    span.style.setProperty("--doubt", (1 - Math.exp(logprob)).toFixed(3));
    node.append(span);
  }
  return node;
}

function under(message, index) {
  const node = element("div", { className: "under" });
  if (state.running) return node;
  const action = (label, act) => node.append(element("button", { type: "button", onclick: act }, label));
  action("Copy", () => navigator.clipboard?.writeText(message.content));
  if (message.role === "user") action("Edit", () => edit(index));
  else if (index === state.messages.length - 1) action("Again", () => again(index));
  if (message.figures) node.append(figures(message.figures));
  return node;
}

function figures({ first, seconds, usage, reason }) {
  const rate = usage.completion_tokens > 1 && seconds > first ? (usage.completion_tokens - 1) / (seconds - first) : null;
  const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
  return [
    `${usage.completion_tokens} tokens`,
    rate && `${rate.toFixed(1)} a second`,
    `first after ${first.toFixed(2)} s`,
    `prompt ${usage.prompt_tokens}, ${cached} of it known`,
    reason === "length" && "cut at the limit",
  ].filter(Boolean).join(" · ");
}

function show() {
  const chat = $("chat");
  const atEnd = chat.scrollHeight - chat.scrollTop - chat.clientHeight < 80;
  if (!state.messages.length) {
    const hint = "Enter sends, Shift+Enter begins a line, Esc stops. What you say stays on this machine.";
    chat.replaceChildren(element("div", { className: "hello" }, element("b", {}, "What shall we talk about?"), hint));
    return;
  }
  chat.replaceChildren(...state.messages.map(article));
  if (atEnd) chat.scrollTop = chat.scrollHeight;
}

let due = false;
function showLast() { // once a frame, however many tokens come
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    const chat = $("chat"), index = state.messages.length - 1;
    const atEnd = chat.scrollHeight - chat.scrollTop - chat.clientHeight < 120;
    chat.lastElementChild?.replaceWith(article(state.messages[index], index));
    if (atEnd) chat.scrollTop = chat.scrollHeight;
  });
}

// What is asked

function request() {
  const said = state.messages.slice(0, -1).map(({ role, content }) => ({ role, content }));
  const own = Object.fromEntries(Object.entries(settings.samplers).filter(([, value]) => value !== ""));
  return {
    messages: [...(settings.system ? [{ role: "system", content: settings.system }] : []), ...said],
    stream: true,
    stream_options: { include_usage: true },
    ...(settings.colours ? { logprobs: true, top_logprobs: 5 } : {}),
    ...(settings.maxTokens ? { max_tokens: Number(settings.maxTokens) } : {}),
    ...(settings.seed !== "" ? { seed: Number(settings.seed) } : {}),
    ...own,
  };
}

async function reply() {
  const message = { role: "assistant", content: "", reasoning: "", tokens: [] };
  const abort = new AbortController(), began = performance.now();
  state.messages.push(message);
  state.running = { message, abort };
  busy(true);
  show();
  let first = null, reason = null, usage = null;
  try {
    const response = await fetch("/v1/chat/completions", {
      method: "POST", headers: headers(), body: JSON.stringify(request()), signal: abort.signal,
    });
    if (!response.ok) throw new Error(await problem(response));
    for await (const chunk of events(response)) {
      if (chunk.error) throw new Error(chunk.error.message);
      usage = chunk.usage ?? usage;
      const choice = chunk.choices?.[0];
      if (!choice) continue;
      const { content, reasoning_content: thought } = choice.delta;
      if ((content || thought) && first === null) first = (performance.now() - began) / 1000;
      message.content += content ?? "";
      message.reasoning += thought ?? "";
      for (const entry of choice.logprobs?.content ?? []) {
        message.tokens.push({ token: entry.token, logprob: entry.logprob, top: entry.top_logprobs });
      }
      reason = choice.finish_reason ?? reason;
      showLast();
    }
    if (usage) message.figures = { first: first ?? 0, seconds: (performance.now() - began) / 1000, usage, reason };
  } catch (error) {
    if (error.name !== "AbortError") message.error = error.message;
    else if (!message.content) message.error = "Stopped.";
  }
  state.running = null;
  busy(false);
  save();
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
  state.messages.push({ role: "user", content: text });
  reply();
}

function again(index) {
  state.messages.length = index;
  reply();
}

function edit(index) {
  $("text").value = state.messages[index].content;
  state.messages.length = index;
  save();
  show();
  $("text").focus();
}

const stop = () => state.running?.abort.abort();

function fresh() {
  stop();
  state.messages = [];
  save();
  show();
  $("text").focus();
}

function exported() {
  const data = new Blob([JSON.stringify({ system: settings.system, messages: state.messages }, null, 1)]);
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
    if (name === "key") about();
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
    const response = await fetch("/props", { headers: headers() });
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
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    send();
  }
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape") state.running ? stop() : toggleOptions(false);
  else if (event.altKey && event.code === "KeyN") fresh();
  else if (event.altKey && event.code === "KeyO") toggleOptions();
});
about();
show();
