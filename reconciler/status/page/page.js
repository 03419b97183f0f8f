// The page for people: asks the agent every two seconds and shows what it says.
//
// `view` builds the whole page from one answer, as if from nothing; `morph` then changes only what
// differs in the document, so nothing flickers and focus, selection and opened details stay. All
// text goes in as text, never as markup. Times are told by the agent's clock (its Date header),
// so that a laptop with a wrong clock does not tell nonsense.

const POLL_MS = 2000;
const DEADLINE_MS = 5000;
const HISTORY_LIMIT = 20;
// The same order as WORST_FIRST in report.py.
const WORST_FIRST = ["Failed", "Deploying", "Stopping", "Deployed", "Stopped"];
const SYMBOLS = { Failed: "✕", Deploying: "↻", Stopping: "↓", Deployed: "✓", Stopped: "■" };
const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
const BYTES = ["B", "kB", "MB", "GB", "TB"];

const state = { status: null, history: [], trouble: null, answeredAt: 0, clockOffsetMs: 0 };

// --- asking ---------------------------------------------------------------------------------

async function ask(path) {
  const response = await fetch(path, {
    cache: "no-cache",
    signal: AbortSignal.timeout(DEADLINE_MS),
  });
  state.clockOffsetMs = Date.parse(response.headers.get("date")) - Date.now() || 0;
  return { ok: response.ok, body: JSON.parse(await response.text(), keepLargeNumbers) };
}

// Versions are 64-bit integers, of which JavaScript's numbers hold 53 bits.
function keepLargeNumbers(key, value, context) {
  const lost = Number.isInteger(value) && !Number.isSafeInteger(value);
  return lost && context ? context.source : value;
}

async function refresh() {
  try {
    const [live, status, history] = await Promise.all(
      ["/livez", "/status", `/history?limit=${HISTORY_LIMIT}`].map(ask));
    state.answeredAt = Date.now();
    state.trouble = [live, status].filter((answer) => !answer.ok)
      .map((answer) => answer.body.error).join(" ") || null;
    if (status.ok) state.status = status.body;
    if (history.ok) state.history = history.body.changes;
  } catch {
    state.trouble = "";
  }
  show();
}

async function poll() {
  if (!document.hidden) await refresh();
  setTimeout(poll, POLL_MS);
}

// --- building -------------------------------------------------------------------------------

// h("p.note", {id: "x"}, "text", child, null) makes an element; strings become text nodes.
function h(kind, attributes = {}, ...children) {
  const [tag, ...classes] = kind.split(".");
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(" ");
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== ""));
  return element;
}

// Makes `old` like `fresh` with as few changes as there are differences.
function morph(old, fresh) {
  if (old.nodeName !== fresh.nodeName) return old.replaceWith(fresh);
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    // Whether details are open is the reader's choice.
    if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  const wanted = [...fresh.childNodes];
  while (old.childNodes.length > wanted.length) old.lastChild.remove();
  wanted.forEach((child, index) => {
    if (index < old.childNodes.length) morph(old.childNodes[index], child);
    else old.append(child);
  });
}

function show() {
  const banner = document.getElementById("banner");
  const main = document.getElementById("main");
  morph(banner, h("div", { id: "banner", role: "alert" }, bannerView()));
  if (!state.status) return;
  const attributes = { id: "main", "aria-busy": "false" };
  if (state.trouble !== null) attributes.class = "stale";
  morph(main, h("main", attributes, view(state.status, state.history)));
  const mark = state.trouble === null ? verdict(state.status).mark : "?";
  document.title = `${mark} ${state.status.node} · reconciler`;
}

// --- what is shown --------------------------------------------------------------------------

function bannerView() {
  if (state.trouble === null) return [];
  const asOf = state.status ? " What is shown below is what it said last." : "";
  if (state.trouble) return [h("p.banner.bad", {}, state.trouble + asOf)];
  // A moment, not a count of seconds: a screen reader would read every change of an alert.
  const since = state.answeredAt
    ? ` since ${new Date(state.answeredAt).toLocaleTimeString()}` : "";
  return [h("p.banner.bad", {}, `The agent has not answered${since}. Trying again.${asOf}`)];
}

function view(status, history) {
  const broken = status.conditions.filter((condition) => !condition.holds);
  const holding = status.conditions.filter((condition) => condition.holds);
  return [
    headerView(status),
    verdictView(status),
    broken.length || status.problems.length ? attentionView(broken, status.problems) : null,
    h("section.cards", {}, commitView(status), diskView(status.disk)),
    deploymentsView(status),
    historyView(history),
    holding.length ? holdingView(holding) : null,
  ].filter(Boolean);
}

function headerView(status) {
  return h("header", {},
    h("h1", {}, status.node),
    h("p.muted", {},
      status.group === null ? "in no group" : ["group ", h("strong", {}, status.group)],
      ` · reconciler ${status.program_version} · up since `, moment(status.started_at)));
}

// One answer to "is all well?" for the first glance and for the tab's title.
function verdict(status) {
  const all = [...status.deployments, ...status.removals];
  const count = (phase) => all.filter((item) => item.phase === phase).length;
  const broken = status.conditions.filter((condition) => !condition.holds).length;
  const moving = count("Deploying") + count("Stopping");
  if (count("Failed")) {
    const words = `${count("Failed")} of ${all.length} deployments failed`;
    return { mark: "✕", kind: "bad", words };
  }
  if (broken) {
    return { mark: "!", kind: "warn", words: `${plural(broken, "thing")} to look at` };
  }
  if (moving) return { mark: "↻", kind: "busy", words: `${plural(moving, "deployment")} on the way` };
  if (!status.ready) return { mark: "↻", kind: "busy", words: "Starting" };
  if (!all.length) return { mark: "✓", kind: "good", words: "Nothing to serve" };
  return { mark: "✓", kind: "good", words: "All is as git says" };
}

function verdictView(status) {
  const { mark, kind, words } = verdict(status);
  return h(`section.verdict.${kind}`, { "aria-live": "polite" },
    h("p.words", {}, h("span.mark", { "aria-hidden": "true" }, mark), words),
    h("p.muted", {}, status.summary));
}

function attentionView(broken, problems) {
  return h("section.attention", { "aria-label": "To look at" },
    broken.map((condition) => h("div.item", {},
      h("p", {}, h("strong", {}, condition.name), " ",
        h("span.muted", {}, `does not hold: ${condition.reason}`)),
      h("p", {}, condition.sentence))),
    problems.map((problem) => h("div.item", {},
      h("p", {}, h("code", {}, `${problem.path}:${problem.line}:${problem.column}`)),
      h("p", {}, problem.message))));
}

function commitView({ observed, applied }) {
  if (!observed) {
    return h("div.card", {}, h("h2", {}, "Commit"), h("p", {}, "No commit has been read yet."));
  }
  const same = applied && applied.id === observed.id;
  const note = same ? "Fully applied."
    : applied ? ["Not fully applied yet. The last one that was: ", commitName(applied)]
      : "Not fully applied yet, and none before it was.";
  return h("div.card", {},
    h("h2", {}, "Commit"),
    h("p.subject", {}, observed.subject),
    h("p.muted", {}, h("code", { title: observed.id }, observed.id.slice(0, 7)),
      " · ", observed.author, " · ", ago(observed.time)),
    h("p", {}, note));
}

function commitName(commit) {
  return h("span", {}, h("code", { title: commit.id }, commit.id.slice(0, 7)), ` ${commit.subject}`);
}

function diskView(disk) {
  if (!disk) return h("div.card", {}, h("h2", {}, "Disk"), h("p", {}, "Not known yet."));
  const used = disk.total_bytes - disk.free_bytes;
  return h("div.card", {},
    h("h2", {}, "Disk"),
    h("p.subject", {}, `${bytes(disk.free_bytes)} free of ${bytes(disk.total_bytes)}`),
    h("meter", { min: 0, max: Math.max(disk.total_bytes, 1), high: disk.total_bytes * 0.9,
      value: used, "aria-label": "Disk space in use" }),
    h("p.muted", {}, `models take ${bytes(disk.models_bytes)}`));
}

function deploymentsView(status) {
  const rank = (item) => (WORST_FIRST.indexOf(item.phase) + WORST_FIRST.length + 1)
    % (WORST_FIRST.length + 1);
  const rows = [
    ...status.deployments.map((item) => ({ ...item, leaving: false })),
    ...status.removals.map((item) => ({ ...item, leaving: true })),
  ].sort((a, b) => rank(a) - rank(b) || (a.model < b.model ? -1 : 1));
  return h("section", { "aria-labelledby": "deployments" },
    h("h2", { id: "deployments" }, "Deployments"),
    rows.length
      ? table("deployments", ["Phase", "Model", "Version", "What is going on"], rows.map(rowView))
      : h("p.empty", {}, emptyWords(status)));
}

function emptyWords(status) {
  if (!status.observed) return "None is known before the first commit has been read.";
  if (status.group === null) {
    return `No group of the config repo names ${status.node}, so it has nothing to serve.`;
  }
  return `The config repo places no model on this node (group ${status.group}).`;
}

function rowView(item) {
  return h("tr", {},
    h("td", { "data-label": "Phase" },
      h(`span.phase.${item.phase}`, {},
        h("span", { "aria-hidden": "true" }, SYMBOLS[item.phase] ?? "?"), item.phase)),
    h("td", { "data-label": "Model" },
      h("strong", { title: item.source }, item.model),
      item.leaving ? h("p.muted", {}, "no longer in git") : null,
      item.description ? h("p.muted", {}, item.description) : null),
    h("td.version", { "data-label": "Version" }, versionsView(item)),
    h("td", { "data-label": "Now" }, doingView(item)));
}

function versionsView(item) {
  const name = (version) => item.version_names?.[version] ?? String(version);
  const serving = item.serving_versions.map(name).join(", ") || "none";
  const wanted = item.phase === "Deployed" ? serving
    : item.leaving || item.stop ? "none" : item.wanted_version === null ? "?" : name(item.wanted_version);
  const labels = Object.entries(item.labels).map(([label, version]) => `${label} ${name(version)}`);
  return [
    serving === wanted
      ? h("span", {}, serving)
      : h("span", {}, `${serving} → ${wanted}`,
        h("span.aside", {}, ` (serving ${serving}, wanted ${wanted})`)),
    item.pinned_version === null && !item.stop && !item.leaving ? h("p.muted", {}, "latest") : null,
    labels.length ? h("p.muted", {}, labels.join(" · ")) : null,
  ].filter(Boolean);
}

function doingView(item) {
  const { progress, last_error: error, retry_at: retryAt } = item;
  return [
    h("p", {}, item.sentence),
    progress ? h("div.progress", {},
      h("progress", { max: Math.max(progress.total_bytes, 1), value: progress.done_bytes,
        "aria-label": `Download of ${item.model}` }),
      h("span.muted", {}, `${bytes(progress.done_bytes)} of ${bytes(progress.total_bytes)}`)) : null,
    error && !item.sentence.includes(error) ? h("p.error", {}, error) : null,
    retryAt ? h("p.muted", {}, `${item.reason} · next try ${until(retryAt)}`)
      : item.phase === "Failed" ? h("p.muted", {}, item.reason) : null,
  ].filter(Boolean);
}

function historyView(history) {
  return h("section", { "aria-labelledby": "history" },
    h("h2", { id: "history" }, "History"),
    history.length
      ? table("history", ["When", "Model", "Version", "Result", "Commit"], history.map(changeView))
      : h("p.empty", {}, "Nothing has changed on this node yet."));
}

function changeView(change) {
  const seconds = change.commit_to_serving_seconds;
  return h("tr", {},
    h("td", { "data-label": "When" }, ago(change.time)),
    h("td", { "data-label": "Model" }, h("strong", {}, change.model)),
    h("td.version", { "data-label": "Version" }, 
      `${change.from_name ?? change.from ?? "none"} → ${change.to_name ?? change.to ?? "none"}`),
    h("td", { "data-label": "Result" },
      h(`span.result.${change.result}`, { title: change.why }, change.result),
      seconds === null ? null
        : h("span.muted", {}, ` ${duration(seconds)} after the commit`),
      change.result === "failed" ? h("p", {}, change.why) : null),
    h("td", { "data-label": "Commit" },
      commitName(change.commit), h("p.muted", {}, change.commit.author)));
}

function holdingView(holding) {
  return h("details", {},
    h("summary", {}, `${plural(holding.length, "condition")} ${holding.length > 1 ? "hold" : "holds"}`),
    h("dl", {}, holding.map((condition) => [
      h("dt", {}, condition.name), h("dd.muted", {}, condition.sentence)])));
}

function table(name, heads, rows) {
  const cells = heads.map((head) => h("th", { scope: "col", role: "columnheader" }, head));
  const element = h(`table.${name}`, { role: "table" },
    h("thead", {}, h("tr", {}, cells)), h("tbody", {}, rows));
  // A narrow screen shows rows as blocks; said outright, the roles outlive that.
  for (const row of element.rows) row.setAttribute("role", "row");
  for (const cell of element.querySelectorAll("td")) cell.setAttribute("role", "cell");
  return element;
}

// --- words for numbers ----------------------------------------------------------------------

function ago(time) {
  const seconds = (Date.now() + state.clockOffsetMs - Date.parse(time)) / 1000;
  const words = seconds < 1 ? "just now" : `${duration(seconds)} ago`;
  return h("time", { datetime: time, title: new Date(time).toLocaleString() }, words);
}

function moment(time) {
  return h("time", { datetime: time }, new Date(time).toLocaleString());
}

function until(time) {
  const seconds = (Date.parse(time) - Date.now() - state.clockOffsetMs) / 1000;
  return seconds < 1 ? "now" : `in ${duration(seconds)}`;
}

function duration(seconds) {
  const [unit, length] = UNITS.find(([, length]) => seconds >= length) ?? UNITS.at(-1);
  return `${Math.floor(seconds / length)} ${unit}`;
}

function bytes(count) {
  let unit = 0;
  for (; count >= 1000 && unit < BYTES.length - 1; unit += 1) count /= 1000;
  return `${unit ? count.toPrecision(3) : count} ${BYTES[unit]}`;
}

function plural(count, word) {
  return `${count} ${word}${count === 1 ? "" : "s"}`;
}

document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
poll();
