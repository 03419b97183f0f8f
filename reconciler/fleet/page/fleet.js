// The page of the whole fleet: asks /fleet.json every three seconds and shows what it says.
//
// What is shown follows from two values: the newest answer, and the place (view, filters, opened
// rows), which stands in the address after the #, so that a link shows another person the same.

import { h, show } from "./dom.js";
import { VIEWS, renderFilters, renderMain, renderViews } from "./views.js";
import { ago, number, parse, plural, secondsSince, setClock, tick } from "./words.js";

const POLL_MS = 3000;
const DEADLINE_MS = 10_000;
const STALE_SECONDS = 15;
// Browsers refuse an address that changes with each key.
const ADDRESS_DELAY_MS = 250;

const state = {
  view: null, etag: null, madeAt: null, trouble: null, answeredAt: 0, showAll: false,
  place: readPlace() };

// --- asking ---------------------------------------------------------------------------------

async function refresh() {
  try {
    // Asked with its own tag, so that an answer that is still the same is neither read nor parsed.
    const response = await fetch("fleet.json", {
      cache: "no-store",
      headers: state.etag ? { "if-none-match": state.etag } : {},
      signal: AbortSignal.timeout(DEADLINE_MS),
    });
    const date = response.headers.get("date");
    setClock(date);
    if (response.status === 304) {
      // The nodes were asked again and what they say is the same.
      state.madeAt = new Date(date ?? Date.now()).toISOString();
    } else {
      const body = parse(await response.text());
      if (!response.ok) throw new Refusal(body.error);
      state.view = body;
      state.etag = response.headers.get("etag");
      state.madeAt = body.generated_at;
    }
    Object.assign(state, { trouble: null, answeredAt: Date.now() });
  } catch (error) {
    state.trouble = error instanceof Refusal ? error.message : "";
    if (!(error instanceof Refusal || error instanceof TypeError || error instanceof DOMException
      || error instanceof SyntaxError)) console.error(error);
  }
  render();
}

class Refusal extends Error {}

async function poll() {
  if (!document.hidden) await refresh();
  setTimeout(poll, POLL_MS);
}

// --- the place ------------------------------------------------------------------------------

function readPlace() {
  const [name, query] = location.hash.slice(1).split("?", 2);
  const view = Object.hasOwn(VIEWS, name) ? name : "overview";
  const { facet, values } = VIEWS[view];
  const given = new URLSearchParams(query);
  return {
    view,
    text: (given.get("text") ?? "").trim(),
    group: given.get("group") ?? "",
    facets: new Set(given.getAll(facet).filter((value) => values.includes(value))),
    open: new Set(given.getAll("open")),
  };
}

function placeText({ view, text, group, facets, open }) {
  const pairs = [
    ["text", text], ["group", group],
    ...[...facets].map((value) => [VIEWS[view].facet, value]),
    ...[...open].map((key) => ["open", key]),
  ].filter(([, value]) => value);
  return `#${view}${pairs.length ? `?${new URLSearchParams(pairs)}` : ""}`;
}

let addressTimer = 0;

function changePlace(change) {
  Object.assign(state.place, change);
  clearTimeout(addressTimer);
  addressTimer = setTimeout(
    () => history.replaceState(null, "", placeText(state.place)), ADDRESS_DELAY_MS);
  render();
}

function toggle(set, value) {
  const changed = new Set(set);
  if (!changed.delete(value)) changed.add(value);
  return changed;
}

// Goes where the address says, and to the row it opens.
function arrive() {
  clearTimeout(addressTimer);
  const { view } = state.place;
  state.place = readPlace();
  render();
  if (state.place.open.size) reveal();
  else if (state.place.view !== view) scrollTo(0, 0);
}

function reveal() {
  const [key] = state.place.open;
  if (key === undefined || !state.view) return;
  const opener = document.querySelector(`[data-open="${CSS.escape(key)}"]`);
  opener?.focus({ preventScroll: true });
  opener?.closest(".item").scrollIntoView({ block: "start" });
}

// --- showing --------------------------------------------------------------------------------

function render() {
  const { view, place } = state;
  show(document.getElementById("banner"), bannerView());
  renderViews(view, place);
  renderAge();
  if (!view) return;
  const first = document.getElementById("main").getAttribute("aria-busy") === "true";
  const { mark, kind, words } = verdict(view);
  show(document.getElementById("verdict"),
    h(`span.words.${kind}`, {}, h("span.mark", { "aria-hidden": "true" }, mark), words));
  document.title = `${state.trouble === null ? mark : "?"} ${words} · Fleet`;
  renderFilters(view, place);
  renderMain(view, place, state.showAll);
  const main = document.getElementById("main");
  main.setAttribute("aria-busy", "false");
  main.classList.toggle("stale", state.trouble !== null);
  show(document.getElementById("footer"), footerView(view));
  if (first) {
    reveal();
    performance.mark("fleet-shown");
  }
}

function verdict({ state: fleet, wrong, wrong_count: count, counts }) {
  if (fleet === "blind") return { mark: "✕", kind: "bad", words: "No node answers" };
  if (count) {
    const kind = wrong.some(({ severity }) => severity !== "warning") ? "bad" : "warn";
    const words = count === 1 ? "1 thing is wrong" : `${number(count)} things are wrong`;
    return { mark: kind === "bad" ? "✕" : "!", kind, words };
  }
  if (counts.deployments.Deploying || counts.deployments.Stopping) {
    const moving = counts.deployments.Deploying + counts.deployments.Stopping;
    return { mark: "↻", kind: "busy", words: `${plural(moving, "deployment")} on the way` };
  }
  return { mark: "✓", kind: "good", words: "All is well" };
}

function bannerView() {
  if (state.trouble === null) return null;
  const asOf = state.view ? " What is shown below is what it said last." : "";
  if (state.trouble) return h("p.banner.bad", {}, state.trouble + asOf);
  // A moment, not a count of seconds: a screen reader would read every change of an alert.
  const since = state.answeredAt
    ? ` since ${new Date(state.answeredAt).toLocaleTimeString()}` : "";
  return h("p.banner.bad", {},
    `The server of this page has not answered${since}. Trying again.${asOf}`);
}

// How old what is shown is.
function renderAge() {
  const age = document.getElementById("age");
  if (!state.view) return;
  const old = state.trouble !== null || secondsSince(state.madeAt) > STALE_SECONDS;
  show(age, h(`span.pulse${old ? ".old" : ""}`, { "aria-hidden": "true" }),
    "as of ", ago(state.madeAt));
}

function footerView(view) {
  const source = view.expected_from === "git" ? "the config repo" : "what the nodes say of each other";
  return [
    h("p", {}, "Seen from ", h("strong", {}, view.seen_from), `. What is expected is known from ${source}.`),
    h("p", {}, h("kbd", {}, "/"), " filter ", h("kbd", {}, "Esc"), " clear ",
      h("kbd", {}, "↑"), " ", h("kbd", {}, "↓"), " rows ", h("kbd", {}, "Enter"), " open ",
      h("a", { href: "fleet.json" }, "fleet.json")),
  ];
}

// --- what people do -------------------------------------------------------------------------

const CLEAR = { text: "", group: "", facets: new Set() };
const input = document.getElementById("text");

input.addEventListener("input", () => changePlace({ text: input.value.trim() }));
document.getElementById("group").addEventListener("change",
  (event) => changePlace({ group: event.target.value }));
document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());

document.addEventListener("click", (event) => {
  const { place } = state;
  const button = event.target.closest("button, a");
  if (button?.id === "skip") {
    event.preventDefault(); // its # would be taken for a place
    document.getElementById("main").focus();
  } else if (button?.dataset.open !== undefined) {
    changePlace({ open: toggle(place.open, button.dataset.open) });
  } else if (button?.dataset.facet !== undefined) {
    changePlace({ facets: toggle(place.facets, button.dataset.facet) });
  } else if (button?.dataset.clear !== undefined) {
    changePlace(CLEAR);
    input.focus();
  } else if (button?.dataset.more !== undefined) {
    state.showAll = !state.showAll;
    render();
  } else if (!button && getSelection().isCollapsed) {
    // Anywhere in a row opens it for a mouse; the button in it is for everybody.
    const opener = event.target.closest(".item > .row")?.querySelector("[data-open]");
    if (opener) changePlace({ open: toggle(place.open, opener.dataset.open) });
  }
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/" && !event.target.matches("input, select, textarea")) {
    event.preventDefault();
    input.focus();
    input.select();
  } else if (event.key === "Escape" && event.target === input) {
    event.preventDefault();
    changePlace({ text: "" });
  } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    if (event.target.matches("[data-open]")) step(event, event.key === "ArrowDown" ? 1 : -1);
    else if (event.target === input) step(event, 1);
  }
});

// Moves the focus from row to row; from the filter to the first one.
function step(event, by) {
  const openers = [...document.querySelectorAll("[data-open]")];
  const next = openers[openers.indexOf(event.target) + by];
  if (!next) return;
  event.preventDefault();
  next.focus();
}

addEventListener("hashchange", arrive);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
setInterval(() => { tick(); renderAge(); }, 1000);
render();
poll();
