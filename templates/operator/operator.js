// Keeps a dashboard up to date: the gateway sends each part anew as HTML when it has changed, and
// only what is different in it is changed here, so that nobody loses the place where they are.

const parts = document.getElementById("live-parts");
// What tests and whoever debugs can look at.
window.callgate = { events: 0, isLive: false };

// How long nothing may come before the page says that it is out of date, in milliseconds.
const QUIET = 15_000;
// How soon a gateway that has refused is asked again.
const AGAIN = 10_000;

if (parts) {
  follow();
}

function follow() {
  const source = new EventSource(parts.dataset.events);
  let quiet = setTimeout(() => says(false), QUIET);
  source.onmessage = ({ data }) => {
    for (const [id, html] of Object.entries(JSON.parse(data))) {
      const part = document.getElementById(id);
      if (part) change(part, html);
    }
    window.callgate.events += 1;
    clearTimeout(quiet);
    quiet = setTimeout(() => says(false), QUIET);
    says(true);
  };
  source.onerror = () => {
    // A browser asks again by itself, unless it was refused.
    if (source.readyState !== EventSource.CLOSED) return;
    says(false);
    setTimeout(follow, AGAIN);
  };
}

function says(isLive) {
  window.callgate.isLive = isLive;
  document.getElementById("stale").hidden = isLive;
}

function change(part, html) {
  const wanted = document.createElement("template");
  wanted.innerHTML = html;
  children(part, wanted.content);
}

// Makes the children of one node like those of another. Rows have names, and keep their elements.
function children(here, there) {
  const named = new Map();
  for (const child of here.children) {
    if (child.id) named.set(child.id, child);
  }
  let next = here.firstChild;
  for (const wanted of [...there.childNodes]) {
    const known = wanted.id ? named.get(wanted.id) : undefined;
    if (known && known !== next) here.insertBefore(known, next);
    const old = known ?? next;
    const fits = old?.nodeName === wanted.nodeName && (old.id ?? "") === (wanted.id ?? "");
    if (!fits) {
      here.insertBefore(wanted, next);
      continue;
    }
    next = old.nextSibling;
    if (old.nodeType === Node.TEXT_NODE) {
      if (old.data !== wanted.data) old.data = wanted.data;
    } else if (old.nodeType === Node.ELEMENT_NODE) {
      attributes(old, wanted);
      children(old, wanted);
    }
  }
  while (next) {
    const gone = next;
    next = next.nextSibling;
    gone.remove();
  }
}

function attributes(here, there) {
  for (const { name, value } of there.attributes) {
    if (here.getAttribute(name) !== value) here.setAttribute(name, value);
  }
  for (const { name } of [...here.attributes]) {
    // Whether a table is unfolded is the reader's own.
    if (!there.hasAttribute(name) && name !== "open") here.removeAttribute(name);
  }
}
