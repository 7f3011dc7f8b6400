// Building pages without markup in strings: whatever comes from a session or a server is text, and stays text.

/** An element with attributes (`on…` are listeners, `null` and `false` leave one out) and children. */
export function el(tag, attributes = {}, ...children) {
  const made = tag === "svg" || tag === "polyline" || tag === "path" || tag === "line"
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

export const byId = (id) => document.getElementById(id);

/** The class that gives a server its colour. */
export function colourOf(name) {
  const number = Number.parseInt(String(name).replace(/\D/g, ""), 10) || 0;
  return `server hue-${number ? ((number - 1) % 8) + 1 : 0}`;
}

export function chip(name) {
  return el("span", { class: `chip ${colourOf(name)}` }, name);
}

export function clock(date = new Date()) {
  return date.toLocaleTimeString([], { hour12: false });
}

export function plural(count, one, many = `${one}s`) {
  return `${count.toLocaleString()} ${count === 1 ? one : many}`;
}
