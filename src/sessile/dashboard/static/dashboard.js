// The dashboard: asks for the status twice a second, and shows it. What it does to servers, it does by the control API.

import { byId, chip, clock, colourOf, el } from "/static/dom.js";

const EVERY_MS = 500;
const TRACE = 60;          // points of a server's trace: half a minute
const EVENTS_MAX = 40;
const SERVERS_IN_HALF = 5; // more of them need the whole width to show who sees whom

// What each button does in a state: [action, label], or nothing. The server has the last word.
const BUTTONS = [
  (state) => state === "paused" ? ["resume", "Resume"] : ["pause", "Pause", state !== "dead"],
  (state) => state === "draining" ? ["resume", "Undrain"] : ["drain", "Drain", state === "ready" || state === "suspect"],
  (state) => ["restart", "Restart", state !== "starting"],
  (state) => ["kill", "Kill", state !== "dead"],
];
// What engines count that somebody should look at, in the words of `sessile.counts`.
const COUNTS = [
  ["conflicts", "Conflicts", "requests whose changes were not stored, since the session had ended or got a new id"],
  ["stale", "Stale", "requests that had seen more than any holder has"],
  ["degraded", "Degraded", "changes that too few holders confirmed in time"],
  ["late", "Late", "commits after the head of the response had left"],
  ["unavailable", "Unavailable", "sessions that could not be told"],
];
const ANSWERING = ["ready", "draining"];   // what such a server tells is of this moment
const known = new Map();   // name -> { state, requests, pid, at, rates, busy, card, seenAs }
const events = [];
const stored = new Map();  // name of a process of the store -> { role, state, buttons, was, wasRole }
const STORE_BUTTONS = [BUTTONS[0], BUTTONS[2], BUTTONS[3]];

// -- asking ---------------------------------------------------------------------------------------------------------

async function look() {
  try {
    const response = await fetch("/api/status", { cache: "no-store", signal: AbortSignal.timeout(4000) });
    show(await response.json());
    setGone(false);
  } catch {
    setGone(true);
  }
  setTimeout(look, EVERY_MS);
}

async function post(path, about) {
  const response = await fetch(path, { method: "POST", headers: { "X-Sessile": "1" } });
  const told = await response.json();
  if (!response.ok) happened(about, told.error ?? `refused (${response.status})`, true);
}

async function act(name, action) {
  const one = known.get(name);
  one.busy = true;
  try {
    await post(`/api/servers/${encodeURIComponent(name)}/${action}`, name);
  } catch (error) {
    happened(name, `${action}: no answer (${error.message})`, true);
  }
  one.busy = false;
}

function setGone(isGone) {
  byId("gone").hidden = !isGone;
  document.body.classList.toggle("is-gone", isGone);
}

// -- showing --------------------------------------------------------------------------------------------------------

function show(status) {
  byId("setting").textContent = `strategy ${status.strategy} · routing ${status.routing}`;
  byId("service").href = status.url;
  const isCluster = status.servers.some((server) => server.node);
  const kind = isCluster ? "cluster" : status.strategy === "store" ? "store" : "sticky";
  for (const part of document.querySelectorAll("[data-for]")) part.hidden = part.dataset.for !== kind;
  for (const server of status.servers) learn(server);
  if (isCluster) learnSights(status);
  showTotals(status, isCluster);
  for (const server of status.servers) showServer(server, isCluster);
  if (isCluster) showSights(status);
  if (kind === "store") showStore(status);
}

function learn(server) {
  const now = performance.now();
  const one = known.get(server.name);
  if (!one) {
    known.set(server.name, { isApart: isApart(server), state: server.state, requests: server.requests, pid: server.pid, at: now, rates: [], busy: false, card: makeCard(server.name) });
    return;
  }
  const isSame = server.pid === one.pid;
  const rate = isSame ? Math.max(0, server.requests - one.requests) / ((now - one.at) / 1000) : 0;
  one.rates.push(rate);
  if (one.rates.length > TRACE) one.rates.shift();
  if (server.state !== one.state) happened(server.name, wordsFor(one.state, server), server.state === "dead");
  if (isApart(server) !== one.isApart) happened(server.name, isApart(server) ? "apart from the store: it goes on from its own copies" : "no longer apart from the store", isApart(server));
  Object.assign(one, { isApart: isApart(server), state: server.state, requests: server.requests, pid: server.pid, at: now });
}

/** How those who answer see each server: told when they are of one mind, and of another than before. */
function learnSights({ servers }) {
  const observers = servers.filter((server) => ANSWERING.includes(server.state));
  for (const { name } of servers) {
    const views = new Set(observers.filter((one) => one.name !== name).map((one) => one.sees[name] ?? "unknown"));
    if (views.size !== 1) continue;
    const one = known.get(name);
    const [view] = views;
    if (view === one.seenAs) continue;
    const words = one.seenAs ? SIGHT_WORDS[view] : null;
    if (words) happened(name, words, view === "dead");
    one.seenAs = view;
  }
}

const SIGHT_WORDS = {
  alive: "the others see it alive",
  suspect: "the others do not hear it: suspect",
  leaving: "leaving: it hands over what it holds",
  left: "has left the others in good order",
  dead: "dead to the others, who hold its sessions now",
};

function wordsFor(before, server) {
  switch (server.state) {
    case "dead": return `dead: its process ${server.detail}`;
    case "starting": return `starting as process ${server.pid}`;
    case "ready": return before === "starting" ? `ready as process ${server.pid}` : `ready again after being ${before}`;
    case "suspect": return "suspect: it does not answer";
    case "paused": return "paused: its process is stopped";
    case "draining": return "draining: it takes no new users";
    default: return server.state;
  }
}

function happened(name, words, isBad = false) {
  events.unshift({ time: clock(), name, words, isBad });
  events.length = Math.min(events.length, EVENTS_MAX);
  byId("events").replaceChildren(...events.slice(0, 14).map((event) => el("li", {},
    el("time", {}, event.time), event.name ? chip(event.name) : el("span"), el("span", { class: event.isBad ? "bad" : "" }, event.words))));
}

function showTotals({ servers, balancer, totals }, isCluster) {
  const ready = servers.filter((server) => server.state === "ready" && !isApart(server)).length;
  const rate = servers.reduce((total, server) => total + lastRate(server.name), 0);
  const figures = [
    ["Servers ready", String(ready), ` of ${servers.length}`],
    ["Sessions", totals.sessions.toLocaleString(), ""],
    ...(isCluster ? [
      ["Copies", totals.copies.toLocaleString(), ""],
      ...(totals.directory === null ? [] : [["Directory", totals.directory.toLocaleString(), " keys"]]),
      ["Lag", totals.lag_ms.toFixed(1), " ms"],
      ["Between servers", ...split(size(totals.bytes_sent))],
    ] : []),
    ["Requests", perSecond(rate), " /s"],
    ["Balancer", balancer.state, ""],
  ];
  byId("totals").replaceChildren(...figures.map(([term, value, rest]) =>
    el("div", {}, el("dt", {}, term), el("dd", {}, value, el("small", {}, rest)))));
  byId("counts").replaceChildren(...COUNTS.map(([name, term, meaning]) =>
    el("div", { class: totals[name] ? "some" : "", title: meaning }, el("dt", {}, term), el("dd", {}, totals[name].toLocaleString()))));
}

const split = (text) => [text.slice(0, text.indexOf(" ")), text.slice(text.indexOf(" "))];
/** What a server that serves lacks of its store, in two words; empty where nothing. */
const lackOf = ({ state, cluster }) => {
  if (state !== "ready") return "";
  return cluster.state === "away" ? "store away" : cluster.channel === "down" ? "store unheard" : "";
};
const isApart = (server) => lackOf(server) !== "";
const lastRate = (name) => known.get(name)?.rates.at(-1) ?? 0;
const perSecond = (rate) => (rate >= 10 || rate === 0 ? Math.round(rate).toLocaleString() : rate.toFixed(1));

function size(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  if (bytes < 1e6) return `${(bytes / 1000).toFixed(1)} kB`;
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}

/** The parts of a card that stay: buttons keep their focus while figures change. */
function makeCard(name) {
  const buttons = BUTTONS.map((buttonIn) => {
    const [action, label] = buttonIn("starting");
    return el("button", {
      type: "button", "data-action": action, class: action === "kill" ? "danger" : null,
      onclick: (event) => act(name, event.currentTarget.dataset.action),
    }, label);
  });
  const state = el("span", { class: "state" });
  const line = el("polyline", { points: "" });
  const figures = el("dl", { class: "figures" });
  const roles = el("div", { class: "roles" });
  const trouble = el("p", { class: "trouble small" });
  const trace = el("svg", { class: "trace", viewBox: `0 0 ${TRACE - 1} 20`, preserveAspectRatio: "none", "aria-hidden": "true" },
    el("line", { x1: 0, x2: TRACE - 1, y1: 20, y2: 20 }), line);
  const root = el("li", { class: `card ${colourOf(name)}` },
    el("div", { class: "head" }, chip(name), state), trace, figures, roles, trouble, el("div", { class: "acts" }, ...buttons));
  byId("servers").insertBefore(root, byId("add"));
  return { root, state, line, figures, roles, trouble, buttons };
}

function showServer(server, isCluster) {
  const { card, rates, busy } = known.get(server.name);
  card.root.className = `card ${colourOf(server.name)} ${server.state}`;
  card.state.className = `state ${isApart(server) ? "apart" : server.state}`;
  card.state.textContent = lackOf(server) || server.state;
  card.state.title = isApart(server) ? server.cluster.reason || "the store's channel is down" : server.detail;
  card.line.setAttribute("points", tracePoints(rates));
  const figure = (term, value, kind = "") => el("div", { class: kind }, el("dt", {}, term), el("dd", {}, value));
  card.figures.replaceChildren(
    figure(isCluster ? "Holds" : "Sessions", server.sessions.toLocaleString(), "lead"),
    figure("Requests", server.requests.toLocaleString(), "lead"),
    figure("Per second", perSecond(rates.at(-1) ?? 0), "lead"),
    ...(isCluster ? [
      figure("Lag", `${(server.cluster.lag_ms ?? 0).toFixed(1)} ms`),
      figure("Sent", size(server.bytes_sent)),
      figure("Received", size(server.bytes_received)),
    ] : []),
    figure("Process", server.pid ? String(server.pid) : "none"),
    figure("Port", String(server.port)),
    figure(isCluster ? "Memory" : "Held", size(server.bytes)));
  card.roles.hidden = !isCluster;
  if (isCluster) card.roles.replaceChildren(...rolesOf(server.cluster));
  const counted = COUNTS.filter(([name]) => server.stats[name]).map(([name, term]) => `${server.stats[name].toLocaleString()} ${term.toLowerCase()}`);
  card.trouble.hidden = !counted.length;
  card.trouble.textContent = counted.join(", ");
  card.buttons.forEach((button, at) => {
    const [action, label, isSensible = true] = BUTTONS[at](server.state);
    button.dataset.action = action;
    button.textContent = label;
    button.disabled = busy || !isSensible;
  });
}

/** A bar of what a server is to the sessions that it holds, and the same in words. */
function rolesOf({ primary = 0, backup = 0, other = 0 }) {
  const roles = [["primary", primary, "primary"], ["backup", backup, "backup"], ["other", other, "proxy"]];
  const bar = el("svg", { class: "bar", viewBox: "0 0 100 1", preserveAspectRatio: "none", "aria-hidden": "true" });
  const all = Math.max(1, primary + backup + other);
  let at = 0;
  for (const [name, count] of roles) {
    if (count) bar.append(el("line", { class: name, x1: at, x2: at += (100 * count) / all, y1: 0.5, y2: 0.5 }));
  }
  const words = roles.filter(([name, count]) => count || name !== "other");
  return [bar, el("p", { class: "small soft" }, ...words.flatMap(([name, count, word], place) => [
    place ? " " : "", el("span", { class: `role ${name}`, title: name === "other" ? "copies kept for the moment by a server that is no holder" : null }, el("b", {}, count.toLocaleString()), ` ${word}`)]))];
}

function showSights({ servers, remarks }) {
  const word = (standing) => el("td", { class: `sight ${standing}`, title: standing }, el("i", { "aria-hidden": "true" }), el("span", {}, standing));
  const head = el("tr", {}, el("th", { scope: "col", class: "soft" }, "sees"), ...servers.map(({ name }) => el("th", { scope: "col" }, chip(name))));
  const rows = servers.map((one) => el("tr", { class: ANSWERING.includes(one.state) ? "" : "past" },
    el("th", { scope: "row" }, chip(one.name)),
    ...servers.map(({ name }) => name === one.name || one.state === "dead" ? el("td") : word(one.sees[name] ?? "unknown"))));
  const balancer = el("tr", { class: "balancer" }, el("th", { scope: "row", class: "soft" }, "balancer"), ...servers.map((one) => word(one.balancer_sees)));
  byId("seen").classList.toggle("is-wide", servers.length > SERVERS_IN_HALF);
  byId("sights").replaceChildren(el("thead", {}, head), el("tbody", {}, ...rows, balancer));
  const past = servers.filter((one) => !ANSWERING.includes(one.state) && Object.keys(one.sees).length);
  const sentences = remarks.length ? remarks.map((remark) => `${remark}.`) : ["All see each other alive."];
  if (past.length) sentences.push(`What ${past.map(({ name }) => name).join(", ")} saw last is dimmed.`);
  byId("remarks").textContent = sentences.join(" ");
}

/** The store's processes, each with its buttons; the rows are made once, so that buttons keep their focus. */
function showStore({ store, remarks, servers }) {
  const views = servers.filter((one) => one.cluster.state).map(({ name, cluster }) => `${name}: ${cluster.state}${cluster.queued ? `, ${cluster.queued.toLocaleString()} sessions wait for it` : ""}`);
  byId("store-words").className = servers.some(isApart) ? "small bad" : "small soft";
  byId("store-words").textContent = [...remarks.map((remark) => `${remark}.`), views.length ? `As the servers see it: ${views.join("; ")}.` : ""].join(" ");
  for (const process of store) {
    let row = stored.get(process.name);
    if (!row) {
      const buttons = STORE_BUTTONS.map(() => el("button", { type: "button", onclick: (event) => actOnStore(process.name, event.currentTarget) }, ""));
      const role = el("td"), state = el("td");
      row = { role, state, buttons };
      stored.set(process.name, row);
      byId("store").append(el("tr", {}, el("th", { scope: "row" }, chip(process.name)), role, state, el("td", { class: "acts" }, ...buttons)));
    }
    if (row.was && row.was !== process.state) happened(process.name, `${process.role || "its process"} ${process.state}`, process.state === "dead");
    if (row.wasRole && process.role && row.wasRole !== process.role) happened(process.name, `is the ${process.role} now`);
    Object.assign(row, { was: process.state, wasRole: process.role || row.wasRole });
    row.role.textContent = process.role;
    row.state.textContent = process.state;
    row.buttons.forEach((button, at) => {
      const [action, label, isSensible = true] = STORE_BUTTONS[at](process.state);
      Object.assign(button, { textContent: label, disabled: !isSensible });
      button.dataset.action = action;
    });
  }
}

async function actOnStore(name, button) {
  try { await post(`/api/servers/${encodeURIComponent(name)}/${button.dataset.action}`, name); } catch (error) { happened(name, `no answer (${error.message})`, true); }
}

function tracePoints(rates) {
  const highest = Math.max(5, ...[...known.values()].flatMap((one) => one.rates));
  const first = TRACE - rates.length;
  return rates.map((rate, at) => `${first + at},${(19 - (18 * rate) / highest).toFixed(2)}`).join(" ");
}

function makeAdder() {
  const button = el("button", { type: "button" }, "Add a server");
  button.addEventListener("click", async () => {
    button.disabled = true;
    button.textContent = "Starting…";
    try { await post("/api/servers", ""); } catch (error) { happened("", `no server added (${error.message})`, true); }
    button.disabled = false;
    button.textContent = "Add a server";
  });
  byId("servers").append(el("li", { class: "card add", id: "add" }, button));
}

makeAdder();
look();
