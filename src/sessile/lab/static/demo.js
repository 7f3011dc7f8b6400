// The demo's page: sends requests, shows what was answered and by whom, and says in words what became of the session.

import { byId, chip, clock, colourOf, el, plural } from "/static/dom.js";

const HISTORY_MAX = 60;
const ROWS_MAX = 12;
const BURST = 8;
const PATIENCE_MS = 800;   // then somebody who waits is told so
const GIVE_UP_MS = 30000;
const SETTLE_MS = 150;     // parallel requests may miss each other for one replication delay

const about = { strategy: "", routing: "" };
const past = [];          // newest first: { time, request, label, answer, outcome, before, note }
let key = "";             // of the session that this browser's cookie names, as far as answers told
let keeper = "";          // the server that last answered for that session
let memory = "";          // where both are kept over a reload, for this run of the demo only

// -- asking ---------------------------------------------------------------------------------------------------------

async function ask(method, path) {
  const had = key;
  const patience = setTimeout(() => showWaiting(method), PATIENCE_MS);
  try {
    const response = await fetch(path, { method, cache: "no-store", signal: AbortSignal.timeout(GIVE_UP_MS) });
    const text = await response.text();
    if (!response.ok) {
      note({ method, path, outcome: "failed", note: `${response.status}: ${reasonIn(text)}` });
      return null;
    }
    const answer = JSON.parse(text);
    note({ method, path, answer, ...judge(path, answer, had) });
    return answer;
  } catch (error) {
    note({ method, path, outcome: "failed", note: `no answer (${error.message})` });
    return null;
  } finally {
    clearTimeout(patience);
  }
}

function reasonIn(text) {
  try { return JSON.parse(text).error ?? text; } catch { return text.trim().slice(0, 160) || "no reason given"; }
}

/** What became of the session in this answer. */
function judge(path, answer, had) {
  const isLogin = path.startsWith("/api/login");
  if (path.startsWith("/api/logout")) return { outcome: "ended", note: "logged out: the session is over" };
  if (!had) return answer.key ? { outcome: "began", note: "a session began" } : { outcome: "none", note: "no session yet" };
  if (answer.key === had) return { outcome: "kept", note: answer.stale ? "the session, but not its newest state" : wordsFor(answer) };
  if (isLogin && !answer.new) return { outcome: "renewed", note: "logged in: the same session under a new key" };
  if (!answer.key) return { outcome: "lost", note: `${answer.server} does not know the session` };
  if (answer.new) return { outcome: "lost", note: `lost: ${answer.server} did not know the session and began another` };
  return { outcome: "kept", note: "another of your sessions, begun at the same time" };
}

const isCluster = () => about.strategy !== "" && about.strategy !== "sticky";

/** How a server came by the session. */
function wordsFor({ role, alone: isAlone }) {
  if (!isCluster()) return "the session is known here";
  if (isAlone) return about.strategy === "store" ? "its own copy; the store does not answer" : "its own copy; no other server is there";
  return { primary: "its primary, from its own memory", backup: "a backup, from its own memory", proxy: "a proxy: it asked a holder" }[role] ?? "the session is known here";
}

/** The request as a person would say it. */
function labelOf(path) {
  const url = new URL(path, location.href);
  const [, , verb] = url.pathname.split("/");
  const given = Object.fromEntries(url.searchParams);
  switch (verb) {
    case "session": return "read";
    case "set": return `set ${given.name} to ${given.value}`;
    case "cart": return `add ${given.item}`;
    case "discard": return `discard ${given.item}`;
    case "login": return `log in as ${given.user}`;
    case "logout": return "log out";
    default: return verb === "remove" ? `remove ${given.name}` : verb;
  }
}

function note({ method, path, answer = null, outcome, note: words }) {
  const before = keeper;
  if (answer) {
    if (answer.key) { key = answer.key; keeper = answer.server; }
    if (outcome === "ended") { key = ""; keeper = ""; }
    sessionStorage.setItem(memory, JSON.stringify({ key, keeper }));
  }
  past.unshift({ time: clock(), request: `${method} ${path}`, label: labelOf(path), answer, outcome, before, note: words });
  past.length = Math.min(past.length, HISTORY_MAX);
  show();
}

// -- showing --------------------------------------------------------------------------------------------------------

function show() {
  const last = past.find((one) => one.answer)?.answer;
  if (last) showAnswer(last);
  showHistory();
  showMeaning();
}

function showAnswer(answer) {
  const { fields } = answer;
  const server = byId("server");
  server.textContent = answer.server;
  server.className = `big ${colourOf(answer.server)}`;
  byId("role").textContent = answer.role === "none" ? "none, it knows nothing" : answer.role;
  byId("key").textContent = answer.key ? `${answer.key.slice(0, 12)}…` : "none";
  byId("key").title = answer.key;
  const user = typeof fields.user === "string" ? fields.user : "";
  byId("user").textContent = user || "nobody";
  byId("who").textContent = user;
  byId("login").hidden = Boolean(user);
  byId("logout").hidden = !user;
  byId("count").textContent = typeof fields.count === "number" ? fields.count.toLocaleString() : "0";
  const cart = Array.isArray(fields.cart) ? fields.cart : [];
  byId("cart").replaceChildren(
    ...(cart.length ? cart.map((item) => el("li", { "data-item": String(item), title: "discard it" }, String(item))) : [el("li", { class: "none" }, "empty")]));
  byId("fields").replaceChildren(...fieldRows(fields));
}

function fieldRows(fields) {
  const names = Object.keys(fields);
  if (!names.length) return [el("div", { class: "none" }, "Nothing.")];
  return names.map((name) => el("div", {},
    el("dt", {}, name),
    el("dd", { class: "mono" }, JSON.stringify(fields[name])),
    el("button", {
      class: "quiet", type: "button", "aria-label": `Remove ${name}`, title: "Remove",
      onclick: () => ask("POST", `/api/remove?name=${encodeURIComponent(name)}`),
    }, "×")));
}

function showHistory() {
  byId("strip").replaceChildren(...past.map((one) => one.answer
    ? el("i", { class: `${colourOf(one.answer.server)} ${one.outcome}`, title: `${one.answer.server}: ${one.note}` })
    : el("i", { class: "failed", title: one.note })));
  const tally = new Map();
  for (const { answer } of past) if (answer) tally.set(answer.server, (tally.get(answer.server) ?? 0) + 1);
  const parts = [...tally].sort(([a], [b]) => a.localeCompare(b, undefined, { numeric: true }));
  const roleOf = (name) => (isCluster() ? past.find((one) => one.answer?.server === name && one.answer.key === key)?.answer.role : "");
  byId("tally").replaceChildren(...parts.flatMap(([name, count], at) => {
    const role = key ? roleOf(name) : "";
    return [at ? ", " : "", `${count} from `, chip(name), role ? ` (${role})` : ""];
  }));
  byId("history").replaceChildren(...alike(past).slice(0, ROWS_MAX).map(({ one, times }) => el("li", { class: one.outcome },
    el("time", {}, one.time),
    one.answer ? chip(one.answer.server) : el("span", { class: "soft" }, "–"),
    el("span", { class: "what", title: one.request }, one.label, times > 1 ? el("span", { class: "times" }, ` × ${times}`) : null),
    el("span", { class: "note" }, one.note))));
}

/** Answers that tell the same, one after the other, as one row. */
function alike(all) {
  const rows = [];
  for (const one of all) {
    const row = rows.at(-1);
    if (row && row.one.label === one.label && row.one.note === one.note && row.one.answer?.server === one.answer?.server) row.times += 1;
    else rows.push({ one, times: 1 });
  }
  return rows;
}

function showWaiting(method) {
  const why = method === "GET" ? "" : " A change goes to one server and is never sent twice, so it waits for that one.";
  byId("meaning").replaceChildren(el("span", {}, `No answer yet.${why}`));
  byId("meaning").className = "meaning";
}

function showMeaning() {
  const told = meaning();
  byId("meaning").replaceChildren(el("span", {}, told.words));
  byId("meaning").className = `meaning ${told.isBad ? "bad" : ""}`;
}

function meaning() {
  const answered = past.filter((one) => one.answer);
  const servers = new Set(answered.map((one) => one.answer.server));
  const lost = past.filter((one) => one.outcome === "lost").length;
  const [last] = past;
  if (!last) return { words: "" };
  if (last.outcome === "failed") return { words: `The last request failed: ${last.note}`, isBad: true };
  if (last.outcome === "lost") return { words: wordsForLoss(last), isBad: true };
  if (last.outcome === "none" || last.outcome === "ended") {
    return { words: "Nothing is kept for you. Count, log in or buy something, and the server that answers will keep a session: a few fields under a key, and a signed cookie that names it." };
  }
  if (isCluster()) return { words: clusterMeaning(answered, servers, lost), isBad: Boolean(last.answer.alone) };
  if (about.routing === "round-robin") {
    const losses = lost ? ` So far this went wrong ${plural(lost, "time")}.` : "";
    return { words: `${plural(answered.length, "answer")} from ${plural(servers.size, "server")}, taken in turns. Each has a memory of its own: only the one that began your session knows it.${losses}` };
  }
  if (servers.size > 1 && lost) {
    return { words: `You belong to ${last.answer.server} now. What the server before it knew of you is gone: with sticky sessions each one lives in a single place.` };
  }
  const all = servers.size > 1 || answered.length === 1 ? "The last answer" : `All ${answered.length} answers`;
  return { words: `${all} came from ${last.answer.server}, which alone knows your session. The balancer put that server’s name, signed, into a cookie, and sends every request that carries it there.` };
}

/** The same where servers hold sessions for each other. */
function clusterMeaning(answered, servers, lost) {
  const [{ answer: last }] = answered;
  const came = about.routing === "round-robin"
    ? `${plural(answered.length, "answer")} from ${plural(servers.size, "server")}, taken in turns.`
    : servers.size === 1 ? `${answered.length === 1 ? "The answer" : `All ${answered.length} answers`} came from ${last.server}, where the balancer keeps you.`
      : `The balancer keeps you at one server, ${last.server} now; when one is gone, the next goes on where you were.`;
  const held = last.alone ? wordsAlone(last.server)
    : about.strategy === "store"
    ? `Your session is in the store. ${last.server} keeps a copy: it answers from that as long as the store tells of no change, and asks where it does.`
    : about.strategy === "all-to-all"
    ? `Every server holds your session: ${last.server} answered from its own memory.`
    : { primary: `${last.server} is the first of the two servers that hold your session: it answered from its own memory, and the other one hears of each change.`,
      backup: `${last.server} holds the second copy of your session: it answered from its own memory, and the primary hears of each change.`,
      proxy: `${last.server} holds no copy of your session: it asked one of the two that do, and then answered.` }[last.role] ?? "";
  return `${came} ${held}${lost ? ` So far sessions were lost ${plural(lost, "time")}.` : ""}`;
}

/** What others should hold, and do not at this moment. */
function wordsAlone(server) {
  return about.strategy === "store"
    ? `The store does not answer. ${server} goes on from a copy in its own memory: what you change waits there until the store is back. Other servers do not know of it until then, and it is lost if ${server} ends before.`
    : `${server} is the only server that is left: it alone holds your session, until another one comes.`;
}

function wordsForLoss({ answer, before }) {
  if (about.strategy === "store") return `${answer.server} asked the store, which does not know your session.`;
  if (isCluster()) return `${answer.server} asked the others, and nobody knows your session: all that held it are gone.`;
  if (about.routing === "round-robin") {
    return answer.key
      ? `${answer.server} had never heard of your session, so it began another, and your browser now carries that one’s cookie. What the server before it knew is out of reach: you were logged out.`
      : `${answer.server} has never heard of your session. Ask the right server and it is there; change something here and it is gone.`;
  }
  const who = before && before !== answer.server ? before : "Your server";
  return `${who} is gone, and your session with it: it lived in that one place. The balancer sent you to ${answer.server}, which starts from nothing.`;
}

// -- the controls ---------------------------------------------------------------------------------------------------

async function burst(path) {
  if (!key) await ask("POST", path);
  const had = key;
  const before = Number(byId("count").textContent.replace(/\D/g, ""));
  const answers = await Promise.all(Array.from({ length: BURST }, () => ask("POST", path)));
  if (isCluster()) await new Promise((done) => { setTimeout(done, SETTLE_MS); });
  const last = await ask("GET", "/api/session");
  if (!last) return;
  const gained = (last.fields.count ?? 0) - before;
  const how = path.startsWith("/api/count") ? "counts" : "increments";
  const servers = new Set(answers.filter(Boolean).map((one) => one.server)).size;
  byId("burst").hidden = false;
  byId("burst").textContent = `${BURST} ${how} at once: ` + (
    answers.includes(null) ? `${answers.filter((one) => !one).length} were not answered, and the number grew by ${gained}.`
      : answers.some((one) => one.key !== had) ? `they went to ${plural(servers, "server")}, and no server has counted them all.`
      : gained === BURST ? `the number grew by ${gained}. None was lost.`
        : `the number grew by ${gained}. They read the same number and overwrote one another.`);
}

function onForm(id, toPath) {
  byId(id).addEventListener("submit", async (event) => {
    event.preventDefault();
    const form = event.target;
    await ask("POST", toPath(new FormData(form)));
    form.reset();
    form.querySelector("input").focus({ preventScroll: true });
  });
}

const query = (data) => new URLSearchParams(data).toString();
onForm("login", (data) => `/api/login?${query(data)}`);
byId("cart").addEventListener("click", (event) => {
  const item = event.target.dataset.item;
  if (item !== undefined) ask("POST", `/api/discard?${query({ item })}`);
});
onForm("add", (data) => `/api/cart?${query(data)}`);
onForm("set", (data) => `/api/set?${query(data)}`);
for (const button of document.querySelectorAll("[data-post]")) {
  button.addEventListener("click", () => ask("POST", button.dataset.post));
}
for (const button of document.querySelectorAll("[data-burst]")) {
  button.addEventListener("click", async () => {
    button.disabled = true;
    await burst(button.dataset.burst);
    button.disabled = false;
  });
}
byId("read").addEventListener("click", () => ask("GET", "/api/session"));
byId("read-ten").addEventListener("click", async () => {
  for (let turn = 0; turn < 10; turn += 1) await ask("GET", "/api/session");
});

async function start() {
  try {
    Object.assign(about, await (await fetch("/api/about")).json());
    memory = `sessile-${about.run}`;
    ({ key, keeper } = JSON.parse(sessionStorage.getItem(memory)) ?? { key: "", keeper: "" });
    byId("dashboard").href = about.dashboard;
    byId("setting").textContent = `strategy ${about.strategy} · routing ${about.routing}`;
  } catch { /* the first answer will say that nobody is there */ }
  await ask("GET", "/api/session");
}
start();
