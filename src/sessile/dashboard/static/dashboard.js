// The dashboard: asks for the status twice a second, and shows it. What it does to servers, it does by the control API.

import { byId, chip, clock, colourOf, el } from "/static/dom.js";

const EVERY_MS = 500;
const TRACE = 60;          // points of a server's trace: half a minute
const EVENTS_MAX = 40;

// What each button does in a state: [action, label], or nothing. The server has the last word.
const BUTTONS = [
  (state) => state === "paused" ? ["resume", "Resume"] : ["pause", "Pause", state !== "dead"],
  (state) => state === "draining" ? ["resume", "Undrain"] : ["drain", "Drain", state === "ready" || state === "suspect"],
  (state) => ["restart", "Restart", state !== "starting"],
  (state) => ["kill", "Kill", state !== "dead"],
];
const known = new Map();   // name -> { state, requests, pid, at, rates, busy, card }
const events = [];

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
  for (const server of status.servers) learn(server);
  showTotals(status);
  for (const server of status.servers) showServer(server);
}

function learn(server) {
  const now = performance.now();
  const one = known.get(server.name);
  if (!one) {
    known.set(server.name, { state: server.state, requests: server.requests, pid: server.pid, at: now, rates: [], busy: false, card: makeCard(server.name) });
    return;
  }
  const isSame = server.pid === one.pid;
  const rate = isSame ? Math.max(0, server.requests - one.requests) / ((now - one.at) / 1000) : 0;
  one.rates.push(rate);
  if (one.rates.length > TRACE) one.rates.shift();
  if (server.state !== one.state) happened(server.name, wordsFor(one.state, server), server.state === "dead");
  Object.assign(one, { state: server.state, requests: server.requests, pid: server.pid, at: now });
}

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

function showTotals({ servers, balancer }) {
  const sum = (of) => servers.reduce((total, server) => total + of(server), 0);
  const ready = servers.filter((server) => server.state === "ready").length;
  const rate = sum((server) => lastRate(server.name));
  const totals = [
    ["Servers ready", String(ready), ` of ${servers.length}`],
    ["Sessions", sum((server) => server.sessions).toLocaleString(), ""],
    ["Requests", perSecond(rate), " /s"],
    ["Balancer", balancer.state, ""],
  ];
  byId("totals").replaceChildren(...totals.map(([term, value, rest]) =>
    el("div", {}, el("dt", {}, term), el("dd", {}, value, el("small", {}, rest)))));
}

const lastRate = (name) => known.get(name)?.rates.at(-1) ?? 0;
const perSecond = (rate) => (rate >= 10 || rate === 0 ? Math.round(rate).toLocaleString() : rate.toFixed(1));

function size(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  return bytes < 1e6 ? `${(bytes / 1000).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
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
  const trace = el("svg", { class: "trace", viewBox: `0 0 ${TRACE - 1} 20`, preserveAspectRatio: "none", "aria-hidden": "true" },
    el("line", { x1: 0, x2: TRACE - 1, y1: 20, y2: 20 }), line);
  const root = el("li", { class: `card ${colourOf(name)}` },
    el("div", { class: "head" }, chip(name), state), trace, figures, el("div", { class: "acts" }, ...buttons));
  byId("servers").insertBefore(root, byId("add"));
  return { root, state, line, figures, buttons };
}

function showServer(server) {
  const { card, rates, busy } = known.get(server.name);
  card.root.className = `card ${colourOf(server.name)} ${server.state}`;
  card.state.className = `state ${server.state}`;
  card.state.textContent = server.state;
  card.state.title = server.detail;
  card.line.setAttribute("points", tracePoints(rates));
  const figure = (term, value, kind = "") => el("div", { class: kind }, el("dt", {}, term), el("dd", {}, value));
  card.figures.replaceChildren(
    figure("Sessions", server.sessions.toLocaleString(), "lead"),
    figure("Requests", server.requests.toLocaleString(), "lead"),
    figure("Per second", perSecond(rates.at(-1) ?? 0), "lead"),
    figure("Process", server.pid ? String(server.pid) : "none"),
    figure("Port", String(server.port)),
    figure("Held", size(server.bytes)));
  card.buttons.forEach((button, at) => {
    const [action, label, isSensible = true] = BUTTONS[at](server.state);
    button.dataset.action = action;
    button.textContent = label;
    button.disabled = busy || !isSensible;
  });
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
