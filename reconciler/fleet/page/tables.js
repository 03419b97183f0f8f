// The four tables: groups, deployments, nodes, changes. Each says its columns, the key of a row,
// the cells of a row and, where a row opens, what is in it.
//
// Rows are grids and not <tr>, for only so can the browser leave out the layout of rows that are not
// on the screen (content-visibility); the roles tell a screen reader that they are tables.

import { fill, h } from "./dom.js";
import { ago, bytes, duration, number, plural, sortVersions, span } from "./words.js";

export const PHASES = ["Failed", "Unknown", "Deploying", "Stopping", "Deployed", "Stopped"];
export const STATES = ["dead", "trouble", "unasked", "well"];
export const RESULTS = ["failed", "deployed", "stopped", "removed"];
const STATE_WORDS = { dead: "Dead", trouble: "Trouble", unasked: "Not asked", well: "Well" };
const SYMBOLS = {
  Failed: "✕", Unknown: "?", Deploying: "↻", Stopping: "↓", Deployed: "✓", Stopped: "■",
  dead: "✕", trouble: "!", unasked: "?", well: "✓",
  failed: "✕", deployed: "✓", stopped: "■", removed: "■",
};
// What changes with every answer and is not shown in a row that nobody has opened.
const VOLATILE = new Set(["silent_seconds", "uptime_seconds", "clock_ahead_seconds"]);

export const deploymentName = ({ group, model }) => `${group}/${model}`;
export const linkTo = (view, more) => `#${view}?${new URLSearchParams(more)}`;

// --- parts ----------------------------------------------------------------------------------

export function pill(name) {
  return h(`span.pill.${name}`, {},
    h("span", { "aria-hidden": "true" }, SYMBOLS[name] ?? "·"), STATE_WORDS[name] ?? name);
}

// One bar of all counts, worst first; the words beside it say the same.
export function stack(counts, names) {
  const parts = names.filter((name) => counts[name] > 0).map((name) => {
    const part = h(`span.part.${name}`);
    part.style.flexGrow = counts[name];
    return part;
  });
  const words = names.filter((name) => counts[name] > 0)
    .map((name) => `${number(counts[name])} ${(STATE_WORDS[name] ?? name).toLowerCase()}`);
  return h("span.stack", { "aria-hidden": "true", title: words.join(", ") || null }, parts);
}

export function gauge({ free_bytes: free, total_bytes: total }) {
  const used = Math.max(0, total - free);
  const [full, rest] = [h("span.part.full"), h("span.part.rest")];
  full.style.flexGrow = used;
  rest.style.flexGrow = free;
  if (used > total * 0.9) full.classList.add("scarce");
  return h("span.stack", { "aria-hidden": "true" }, full, used < total ? rest : null);
}

export const total = (counts) => Object.values(counts).reduce((sum, count) => sum + count, 0);

export function lagWords({ lag }) {
  if (!lag) return "not known";
  if (!lag.commits && !lag.seconds) return "up to date";
  return `${lag.commits === null ? duration(lag.seconds) : plural(lag.commits, "commit")} behind`;
}

export function commitName(commit) {
  return h("code", { title: `${commit.id}\n${commit.subject}\n${commit.author}` }, commit.id.slice(0, 7));
}

// What people call a version that TensorFlow Serving knows by its number.
const versionName = (item, version) => item.version_names[version] ?? String(version);

// "41 → 42" where another version serves than is wanted. Told to a screen reader in words.
function versions(serving, wanted, item) {
  const name = (version) => versionName(item, version);
  const [now, then] = [serving.map(name).join(", ") || "none", wanted.map(name).join(" or ") || "?"];
  if (now === then) return h("span", {}, now);
  return h("span", {}, h("span", { "aria-hidden": "true" }, `${now} → ${then}`),
    h("span.aside", {}, `serving ${now}, wanted ${then}`));
}

function opener(key, isOpen, ...words) {
  return h("button.opener", { type: "button", "data-open": key, "aria-expanded": String(isOpen) },
    h("span.chevron", { "aria-hidden": "true" }), h("span", {}, words));
}

const muted = (...words) => h("span.muted", {}, words);

// Whether a node or a deployment is as it should be, and its sentence says nothing that the rest of
// its row does not say. A node that is well may still be on its way to a new version.
function isQuiet({ state, phase, deployments }) {
  return phase === "Deployed"
    || (state === "well" && !PHASES.slice(0, 4).some((moving) => deployments[moving]));
}

// --- groups ---------------------------------------------------------------------------------

const groups = {
  name: "groups",
  label: "Groups",
  heads: ["Group", "Worst phase", "Nodes", "Deployments", "What is wrong"],
  key: (group) => group.name,
  isOpenable: false,
  cells(group, { wrong }) {
    const first = wrong.find((trouble) => trouble.group === group.name);
    return [
      [h("a.strong", { href: linkTo("deployments", { group: group.name }) }, group.name),
        group.enabled === false ? muted(" disabled in git") : null],
      pill(group.phase),
      [stack(group.nodes, STATES),
        h("a.plain", { href: linkTo("nodes", { group: group.name }) },
          `${number(group.nodes.well)} of ${number(total(group.nodes))} well`)],
      [stack(group.deployments, PHASES),
        `${number(group.deployments.Deployed)} of ${number(total(group.deployments))} deployed`],
      first ? first.sentence : muted("nothing"),
    ];
  },
};

// --- deployments ----------------------------------------------------------------------------

const deployments = {
  name: "deployments",
  label: "Deployments",
  heads: ["Model", "Phase", "Version", "Replicas", "Where it stands"],
  key: deploymentName,
  isOpenable: true,
  cells(item, { isOpen }) {
    const serving = sortVersions(item.nodes.flatMap((standing) => standing.serving_versions));
    const settled = item.stop || ["Deployed", "Stopped"].includes(item.phase);
    const counts = Object.fromEntries(PHASES.map((phase) =>
      [phase, item.nodes.filter((standing) => standing.phase === phase).length]));
    return [
      opener(deploymentName(item), isOpen, h("strong", {}, item.model), muted(` ${item.group}`)),
      pill(item.phase),
      h("span.number", {}, versions(serving, settled ? serving : item.wanted_versions, item)),
      [stack(counts, PHASES), item.wanted_replicas
        ? `${number(item.available_replicas)} of ${number(item.wanted_replicas)}`
        : item.serving_replicas ? `${number(item.serving_replicas)} left` : "none wanted"],
      isQuiet(item) ? muted(item.sentence) : item.sentence,
    ];
  },
  detail: (item) => [
    item.description ? h("p", {}, item.description) : null,
    facts([
      ["source", item.source ? h("code", {}, item.source) : null],
      ["file", item.path ? h("code", {}, item.path) : null],
    ]),
    grid("standings", `${deploymentName(item)} on its nodes`,
      ["Node", "Phase", "Version", "What is going on"],
      item.nodes.map((standing) => [
        [h("a.strong", { href: linkTo("nodes", { open: standing.node }) }, standing.node),
          standing.role === "leaving" ? muted(" leaving") : null],
        ...standingCells(standing, item)])),
  ],
};

function standingCells(standing, item) {
  const { progress, serving_versions: serving, wanted_version: wanted, phase } = standing;
  const settled = wanted === null || ["Deployed", "Stopped"].includes(phase);
  const labels = Object.entries(standing.labels)
    .map(([label, version]) => `${label} ${versionName(item, version)}`);
  return [
    pill(phase),
    h("span.number", {}, phase === "Unknown" && !serving.length ? "?"
      : versions(serving, settled ? serving : [wanted], item),
    labels.length ? muted(` ${labels.join(" · ")}`) : null),
    [h("span", {}, standing.sentence), " ", muted(standing.reason),
      progress ? h("span.progress", {},
        h("progress", { max: Math.max(progress.total_bytes, 1), value: progress.done_bytes,
          "aria-label": `Download to ${standing.node}` }),
        muted(`${bytes(progress.done_bytes)} of ${bytes(progress.total_bytes)}`)) : null],
  ];
}

// --- nodes ----------------------------------------------------------------------------------

const nodes = {
  name: "nodes",
  label: "Nodes",
  heads: ["Node", "State", "Deployments", "Free disk", "Commit", "What is going on"],
  key: (node) => node.name,
  isOpenable: true,
  cells(node, { isOpen }) {
    const last = node.state === "dead" ? "last known" : null;
    return [
      opener(node.name, isOpen, h("strong", {}, node.name), muted(` ${node.group ?? "no group"}`)),
      pill(node.state),
      [stack(node.deployments, PHASES),
        `${number(node.deployments.Deployed)} of ${number(total(node.deployments))}`],
      node.disk ? h("span.last", { title: last }, gauge(node.disk), bytes(node.disk.free_bytes))
        : muted("not known"),
      node.applied ? h("span.last", { title: last }, commitName(node.applied), ` ${lagWords(node)}`)
        : muted(node.observed ? "none applied yet" : "not known"),
      isQuiet(node) ? muted(node.sentence) : [silence(node), node.sentence],
    ];
  },
  detail(node, { view }) {
    const here = view.deployments.flatMap((item) => item.nodes
      .filter((standing) => standing.node === node.name).map((standing) => ({ item, standing })));
    return [
      facts([
        ["address", addressLink(node.address)],
        ["agent", node.program_version],
        ["restarts seen", node.restarts ? number(node.restarts) : null],
        ["clock", clockWords(node.clock_ahead_seconds)],
        ["applied", node.applied ? [commitName(node.applied), ` ${node.applied.subject}`] : null],
        ["observed", node.observed && node.observed.id !== node.applied?.id
          ? [commitName(node.observed), ` ${node.observed.subject}`] : null],
        ["disk", node.disk ? `${bytes(node.disk.free_bytes)} free of `
          + `${bytes(node.disk.total_bytes)}, models take ${bytes(node.disk.models_bytes)}` : null],
        ["mistakes in git", node.problems ? number(node.problems) : null],
      ]),
      node.conditions.map((condition) => h("p.condition", {},
        h("strong", {}, condition.name), ` does not hold (${condition.reason}): `,
        condition.sentence)),
      here.length ? grid("standings", `Deployments on ${node.name}`,
        ["Model", "Phase", "Version", "What is going on"],
        here.map(({ item, standing }) => [
          [h("a.strong", { href: linkTo("deployments", { open: deploymentName(item) }) }, item.model),
            standing.role === "leaving" ? muted(" leaving") : null],
          ...standingCells(standing, item)]))
        : h("p.muted", {}, "Nothing is to be served here, as far as is known."),
    ];
  },
};

// Since when nobody heard of it: what one asks of a dead node first.
function silence(node) {
  if (node.state !== "dead" || !node.answered_at) return null;
  return [h("strong", {}, "No answer for ", span(node.answered_at)), ": "];
}

function addressLink(address) {
  if (!address) return null;
  const url = address.startsWith("https://") ? address : `http://${address}`;
  return h("a", { href: `${url}/`, rel: "noreferrer" }, address);
}

function clockWords(seconds) {
  if (seconds === null || Math.abs(seconds) < 5) return null;
  return `${duration(Math.abs(seconds))} ${seconds > 0 ? "ahead" : "behind"}`;
}

// --- changes --------------------------------------------------------------------------------

const changes = {
  name: "changes",
  label: "Last changes",
  heads: ["When", "Result", "Model", "Version", "Nodes", "Commit"],
  key: (change) => [change.time, change.group, change.model, change.commit_id, change.result].join(),
  isOpenable: false,
  cells: (change) => [
    ago(change.time),
    [pill(change.result), change.result === "failed" ? muted(` ${change.reason}`) : null],
    [h("strong", {}, change.model), change.group ? muted(` ${change.group}`) : null],
    h("span.number", {}, 
      change.to_name ?? (change.to_version === null ? "none" : String(change.to_version))),
    h("span", { title: change.nodes.join(", ") }, change.nodes.length > 4
      ? `${change.nodes.slice(0, 3).join(", ")} and ${number(change.nodes.length - 3)} more`
      : change.nodes.join(", ")),
    h("code.muted", { title: change.commit_id }, change.commit_id.slice(0, 7)),
  ],
};

export const TABLES = { groups, deployments, nodes, changes };

// --- rows -----------------------------------------------------------------------------------

// A table that is filled by `fillTable`; it stays when its rows change.
export function tableShell(table) {
  return h(`div.table.${table.name}`, { role: "table", "aria-label": table.label },
    headRow(table.heads), h("div.body", { role: "rowgroup" }));
}

export function fillTable(element, table, items, view, open) {
  fill(element.querySelector(".body"), items.map((item) => {
    const key = table.key(item);
    const isOpen = table.isOpenable && open.has(key);
    const first = table === groups ? view.wrong.find((wrong) => wrong.group === key)?.sentence : "";
    // What is opened shows all there is, from other parts of the answer too: always built anew.
    const sign = isOpen ? Symbol(key) : JSON.stringify([item, first], table === nodes ? withoutVolatile : null);
    return { key: item.address ? `${key} ${item.address}` : key, sign,
      build: () => rowItem(table, item, { view, wrong: view.wrong, isOpen }) };
  }));
}

function withoutVolatile(name, value) {
  return VOLATILE.has(name) ? undefined : value;
}

function rowItem(table, item, context) {
  const cells = table.cells(item, context);
  const quiet = table !== groups && isQuiet(item) ? ".is-quiet" : "";
  return h(`div.item.is-${item.state ?? item.phase ?? item.result}${quiet}`, {},
    row(table.heads, cells),
    context.isOpen ? h("div.detail", { role: "row" },
      h("div", { role: "cell", "aria-colspan": cells.length }, table.detail(item, context))) : null);
}

function grid(name, label, heads, rows) {
  return h(`div.table.${name}`, { role: "table", "aria-label": label },
    headRow(heads), h("div.body", { role: "rowgroup" }, rows.map((cells) => row(heads, cells))));
}

function headRow(heads) {
  return h("div.head", { role: "rowgroup" },
    h("div.row", { role: "row" }, heads.map((head) => h("div", { role: "columnheader" }, head))));
}

function row(heads, cells) {
  return h("div.row", { role: "row" },
    cells.map((cell, index) => h("div", { role: "cell", "data-label": heads[index] }, cell)));
}

function facts(pairs) {
  return h("dl", {}, pairs.filter(([, value]) => value !== null && value !== "")
    .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}
