// The four views: overview, deployments, nodes, changes. What is shown of one answer, at one place.
//
// A place is what the address says after its #: {view, text, group, facets, open}.

import { fill, h, show } from "./dom.js";
import {
  PHASES, RESULTS, STATES, TABLES, commitName, deploymentName, fillTable, gauge, lagWords, linkTo, pill,
  stack, tableShell, total,
} from "./tables.js";
import { ago, bytes, number, plural } from "./words.js";

const WRONG_SHOWN = 8;
const CHANGES_SHOWN = 8;
const SEVERITY_MARKS = { critical: "✕", serious: "!", warning: "•" };

// What each view lists, by which of its fields it can be narrowed, and what the text filter reads.
export const VIEWS = {
  overview: { label: "Overview", table: TABLES.groups, facet: "phase", values: [],
    items: (view) => view.groups, words: (group) => [group.name, group.phase] },
  deployments: { label: "Deployments", table: TABLES.deployments, facet: "phase", values: PHASES,
    items: (view) => view.deployments,
    words: (item) => [deploymentName(item), item.phase, item.sentence, item.source,
      item.description, item.wanted_versions, Object.values(item.version_names),
      item.nodes.map(({ node, serving_versions: versions }) => [node, versions])] },
  nodes: { label: "Nodes", table: TABLES.nodes, facet: "state", values: STATES,
    items: (view) => view.nodes.toSorted((a, b) => rank(a) - rank(b)),
    words: (node) => [node.name, node.group, node.state, node.sentence, node.address,
      node.applied?.id, node.program_version, node.conditions.map(({ name }) => name)] },
  changes: { label: "Changes", table: TABLES.changes, facet: "result", values: RESULTS,
    items: (view) => view.changes,
    words: (change) => [change.group, change.model, change.to_version, change.to_name, change.result,
      change.reason, change.commit_id, change.nodes] },
};

const rank = (node) => STATES.indexOf(node.state);

// --- filters --------------------------------------------------------------------------------

const haystacks = new WeakMap();

function matchesText(item, words, text) {
  if (!text) return true;
  if (!haystacks.has(item)) {
    haystacks.set(item, words(item).flat(Infinity).join("\n").toLowerCase());
  }
  return text.toLowerCase().split(/\s+/).every((part) => haystacks.get(item).includes(part));
}

const groupOf = (item) => item.group === undefined ? item.name : item.group;

// The items of a place before its facets narrow them: what the facets' counts count.
function itemsBeforeFacets(view, place) {
  const { items, words } = VIEWS[place.view];
  return items(view).filter((item) =>
    (!place.group || groupOf(item) === place.group) && matchesText(item, words, place.text));
}

export function renderFilters(view, place) {
  const { facet, values } = VIEWS[place.view];
  const counts = Map.groupBy(itemsBeforeFacets(view, place), (item) => item[facet]);
  const chips = values.filter((value) => counts.has(value) || place.facets.has(value));
  show(document.getElementById("facets"), chips.map((value) =>
    h("button.chip", { type: "button", "data-facet": value,
      "aria-pressed": String(place.facets.has(value)) },
    pill(value), number(counts.get(value)?.length ?? 0))));

  const names = view.groups.map((group) => group.name).sort();
  if (place.group && !names.includes(place.group)) names.push(place.group);
  const select = document.getElementById("group");
  show(select, h("option", { value: "" }, "All groups"),
    names.map((name) => h("option", { value: name }, name)));
  select.value = place.group;
  const input = document.getElementById("text");
  if (input.value.trim() !== place.text) input.value = place.text;
}

export function renderViews(view, place) {
  const keep = [["text", place.text], ["group", place.group]].filter(([, value]) => value);
  show(document.getElementById("views"), Object.entries(VIEWS).map(([name, { label, items }]) =>
    h("a", { href: linkTo(name, keep), "aria-current": name === place.view ? "page" : null },
      label, view && name !== "overview" ? h("span.count", {}, number(items(view).length)) : null)));
}

// --- main -----------------------------------------------------------------------------------

export function renderMain(view, place, showAll) {
  const { facet, table, label, items } = VIEWS[place.view];
  const shown = itemsBeforeFacets(view, place)
    .filter((item) => !place.facets.size || place.facets.has(item[facet]));
  const overview = place.view === "overview";
  const filtered = Boolean(place.text || place.group || place.facets.size);
  const heading = overview ? table.label : label;

  fill(document.getElementById("main"), [
    overview && view.wrong.length && section("wrong", "What is wrong, worst first", wrongShell),
    overview && !filtered && section("tiles", "The fleet in numbers", () => h("div.tiles")),
    section(place.view, heading, () => tableShell(table)),
    overview && !filtered && section("recent", "Last changes", () => tableShell(TABLES.changes)),
  ].filter(Boolean));

  const body = document.querySelector(`#section-${place.view} .table`);
  fillTable(body, table, shown, view, place.open);
  renderNotes(view, place, shown, items(view).length);
  if (overview) {
    renderTiles(view);
    renderWrong(view, place, showAll);
    renderRecent(view);
  }
}

function section(name, heading, build) {
  return { key: name, sign: "", build: () => h(`section.${name}`,
    { id: `section-${name}`, "aria-labelledby": `heading-${name}` },
    h("h2", { id: `heading-${name}` }, heading), h("div.note"), build()) };
}

// What there is instead of rows, and what was linked to and is not there.
function renderNotes(view, place, shown, count) {
  const { table } = VIEWS[place.view];
  const known = new Set(VIEWS[place.view].items(view).map(table.key));
  const gone = table.isOpenable ? [...place.open].filter((key) => !known.has(key)) : [];
  show(document.querySelector(`#section-${place.view} .note`),
    gone.map((key) => h("p", {}, h("strong", {}, key), " is not, or no longer, in the fleet.")),
    shown.length ? null : h("p", {}, count ? "Nothing here matches the filters. " : "There are none.",
      count ? h("button.plain", { type: "button", "data-clear": "" }, "Clear the filters") : null));
  const words = shown.length === count ? "" : `${number(shown.length)} of ${number(count)}`;
  show(document.getElementById("shown"), words);
}

function renderTiles(view) {
  const tiles = document.querySelector("div.tiles");
  if (!tiles) return;
  show(tiles, [
    countTile("Nodes", linkTo("nodes", {}), view.counts.nodes, "well", STATES),
    countTile("Deployments", linkTo("deployments", {}), view.counts.deployments, "Deployed", PHASES),
    diskTile(view.nodes.filter((node) => node.disk && node.disk.total_bytes)),
    commitTile(view),
  ]);
}

function tile(name, heading, figure, bar, words) {
  return h(`div.tile.${name}`, {},
    h("h3", {}, heading), h("p.figure", {}, figure), bar, h("p.muted", {}, words));
}

function countTile(heading, href, counts, good, names) {
  const rest = names.filter((name) => name !== good && counts[name])
    .map((name) => [h("span.legend", {},
      h(`span.dot.${name}`, { "aria-hidden": "true" }),
      `${number(counts[name])} ${name === "unasked" ? "not asked" : name.toLowerCase()}`), " "]);
  return tile(heading.toLowerCase(), h("a", { href }, heading),
    [number(counts[good]), h("small", {}, ` of ${number(total(counts))} ${good.toLowerCase()}`)],
    stack(counts, names), rest.length ? rest : total(counts) ? "all of them" : "there are none");
}

function diskTile(nodes) {
  if (!nodes.length) return tile("disk", "Disk", "–", null, "No node has said anything of it yet.");
  const sum = (field) => nodes.reduce((bytes, { disk }) => bytes + disk[field], 0);
  const all = { free_bytes: sum("free_bytes"), total_bytes: sum("total_bytes") };
  const share = ({ disk }) => disk.free_bytes / disk.total_bytes;
  const fullest = nodes.reduce((least, node) => share(node) < share(least) ? node : least);
  return tile("disk", "Disk",
    [bytes(all.free_bytes), h("small", {}, ` free of ${bytes(all.total_bytes)}`)], gauge(all),
    ["fullest: ", h("a", { href: linkTo("nodes", { open: fullest.name }) }, fullest.name),
      ` with ${bytes(fullest.disk.free_bytes)} free`]);
}

function commitTile({ newest, nodes }) {
  if (!newest) return tile("commit", "Newest commit", "–", null, "No node has read one yet.");
  const known = nodes.filter((node) => node.lag);
  const behind = known.filter((node) => node.lag.commits || node.lag.seconds);
  const slowest = behind.reduce((worst, node) =>
    !worst || node.lag.seconds > worst.lag.seconds ? node : worst, null);
  return tile("commit", "Newest commit", h("span.subject", { title: newest.subject }, newest.subject),
    h("p", {}, commitName(newest), ` ${newest.author}, `, ago(newest.time)),
    slowest ? [`applied by ${number(known.length - behind.length)} of ${plural(nodes.length, "node")}; `,
      h("a", { href: linkTo("nodes", { open: slowest.name }) }, slowest.name),
      ` is ${lagWords(slowest)}`]
      : `applied by ${number(known.length)} of ${plural(nodes.length, "node")}`);
}

function wrongShell() {
  return h("div", {}, h("ol"), h("p.more"));
}

function renderWrong(view, place, showAll) {
  if (!view.wrong.length) return;
  const matching = view.wrong.filter((trouble) =>
    (!place.group || trouble.group === place.group)
    && matchesText(trouble, ({ group, node, model, sentence }) => [group, node, model, sentence],
      place.text));
  const shown = showAll ? matching : matching.slice(0, WRONG_SHOWN);
  const box = document.getElementById("section-wrong");
  box.hidden = !matching.length;
  fill(box.querySelector("ol"), shown.map((trouble) => {
    const sign = JSON.stringify(trouble);
    return { key: sign.replace(/\d+/g, "#"), sign, build: () => wrongItem(trouble) };
  }));
  const beyond = shown.length === matching.length ? view.wrong_count - view.wrong.length : 0;
  show(box.querySelector(".more"),
    matching.length > WRONG_SHOWN
      ? h("button.plain", { type: "button", "data-more": "" }, showAll ? "Show fewer"
        : `Show ${number(matching.length - WRONG_SHOWN)} more`) : null,
    beyond > 0 ? ` ${number(beyond)} more are wrong and not listed.` : null);
}

function wrongItem({ severity, group, node, model, sentence }) {
  const target = model ? ["deployments", `${group}/${model}`] : node ? ["nodes", node] : null;
  return h("li", {},
    h(`span.pill.${severity}`, {},
      h("span", { "aria-hidden": "true" }, SEVERITY_MARKS[severity] ?? "•"), severity),
    h("span", {}, sentence),
    target ? h("a", { href: linkTo(target[0], { open: target[1] }) }, target[1]) : null);
}

function renderRecent(view) {
  const table = document.querySelector("#section-recent .table");
  if (!table) return;
  fillTable(table, TABLES.changes, view.changes.slice(0, CHANGES_SHOWN), view, new Set());
  show(document.querySelector("#section-recent .note"),
    view.changes.length ? null : h("p", {}, "No node has told of any yet."));
}
