// The page: the address after # says what is shown, so that Back, reloading and sharing work; each view asks /v1 and draws its answer.
import { ask, hasToken, image, setToken } from "./api.js";

const $ = (id) => document.getElementById(id);
const K = 12;
const PAGE = 60;
const SCORE = "score_at_top_30";
const FIGURES = {
  "fine.recall_at_1": "The nearest image shows the same class",
  "fine.recall_at_5": "At least one of the nearest 5 shows the same class",
  "fine.recall_at_10": "At least one of the nearest 10 shows the same class",
  "fine.map_at_r": "Images of the same class come before all others",
  "coarse.recall_at_1": "The nearest image shows the same kind of thing",
  "coarse.recall_at_5": "At least one of the nearest 5 shows the same kind of thing",
  "coarse.recall_at_10": "At least one of the nearest 10 shows the same kind of thing",
  "coarse.map_at_r": "Images of the same kind come before all others",
  ndcg_at_10: "The nearest 10 come in the right order: same class, then same kind",
  triplet_accuracy: "Of two images, the one of the same class is nearer",
  triplet_accuracy_same_parent: "The same where both are of one kind",
  score_at_top_30: "Among the nearest 30: pairs in the right order less pairs in the wrong one, from -1 to 1",
};

// What was dropped or chosen stays in this page and is gone with it.
const uploads = new Map();
const known = new Map();
const trail = [];
const scrolled = new Map();
let leaving = new AbortController();
let arriving = "";
let here = null;
let version = null;
let classes = null;

function h(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// ---- addresses

function to(path, { under = "", k = K, find = "" } = {}) {
  const options = new URLSearchParams();
  if (under) options.set("under", under);
  if (Number(k) !== K) options.set("k", k);
  if (find) options.set("find", find);
  return `#${path}${options.size ? "?" : ""}${options.toString().replaceAll("%2F", "/")}`;
}

function go(address, scroll = "top") {
  arriving = scroll;
  location.hash = address;
}

function where() {
  const [path, query] = location.hash.slice(1).split("?");
  const [view, key] = path.split("/");
  return { view, key, path, options: Object.fromEntries(new URLSearchParams(query)) };
}

// ---- what is said

function notice(text, again) {
  $("message").hidden = !text;
  $("message").querySelector("p").textContent = text;
  $("message").querySelector("button").hidden = !again;
}

const busyText = (seconds) => `The service is busy. Asking again in ${seconds} s.`;
const busy = (seconds) => notice(seconds ? busyText(seconds) : "");

function fail(error) {
  if (error.name === "AbortError") return;
  for (const list of document.querySelectorAll("[aria-busy=true]")) settle(list, []);
  if (error.status === 401) {
    notice(hasToken() ? "The service does not take that token." : "");
    $("token-form").hidden = false;
    $("token").focus();
  } else {
    notice(error.message, !error.status || error.status >= 429);
  }
}

const guarded =
  (job) =>
  (...given) =>
    job(...given).catch(fail);

function titled(section, title, facts) {
  section.querySelector("h1").textContent = title;
  if (facts !== undefined) section.querySelector(".facts").textContent = facts;
  $("said").textContent = facts || title;
  document.title = `${title} · deeprank`;
}

function heard(answer) {
  if (answer.version !== version) classes = null;
  version = answer.version;
  $("to-model").textContent = version === null ? "Model" : `Model ${version}`;
  for (const one of answer.neighbors ?? answer.members ?? answer.samples ?? []) known.set(one.id, one);
  return answer;
}

// ---- parts

const leaf = (label) => label.split("/").at(-1);
const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)} %`;
const count = (number, one, many = `${one}s`) => `${number.toLocaleString()} ${number === 1 ? one : many}`;

function waiting(list, places) {
  list.setAttribute("aria-busy", "true");
  list.replaceChildren(...Array.from({ length: places }, () => h("li", { className: "waiting" })));
}

function settle(list, items) {
  list.removeAttribute("aria-busy");
  list.replaceChildren(...items);
}

function named(label) {
  const parents = label.split("/").slice(0, -1).join(" › ");
  return h("p", { className: "label", title: label }, h("span", {}, parents), h("strong", {}, leaf(label)));
}

function bar(share, name) {
  const element = h("span", { className: `bar-of ${name}` });
  element.style.setProperty("--share", share);
  return element;
}

function clusterLink({ cluster }) {
  return cluster < 0 ? h("span", {}, "no cluster") : h("a", { href: to(`cluster/${cluster}`) }, `cluster ${cluster}`);
}

function tile(one, signal, options, ...more) {
  const link = h("a", { href: to(`like/${one.id}`, options), title: "Search on from this one" }, image(one.id, one.label, signal));
  return h("li", { className: "tile" }, link, named(one.label), ...more);
}

// Fills a section's list page by page; load(offset) returns what to add and the next offset, null at the end.
async function paged(section, load) {
  const [list, more] = [section.querySelector(".grid"), section.querySelector(".more")];
  const add = async (offset) => {
    const { items, next } = await load(offset);
    offset ? list.append(...items) : settle(list, items);
    more.hidden = next === null;
    more.onclick = guarded(async () => (await add(next))[0].querySelector("a").focus());
    return items;
  };
  await add(0);
}

// ---- views

async function start(section, { signal }) {
  trail.length = 0;
  titled(section, "Find images like yours");
  const list = $("samples");
  if (list.querySelector("a")) return;
  waiting(list, 24);
  const { samples } = heard(await ask("v1/samples?count=24", { signal, onBusy: busy }));
  // These stay when the view is left, and so does what still loads.
  settle(list, samples.map((one) => tile(one)));
}

function questioned(subjects, more = {}) {
  const body = new FormData();
  for (const one of subjects) one.file ? body.append("image", one.file) : body.append("id", one.id);
  for (const [name, value] of Object.entries(more)) if (value) body.append(name, value);
  return { method: "POST", body, onBusy: busy };
}

async function result(section, { view, key, path, options, signal }) {
  const own = view === "own";
  const subject = own ? uploads.get(key) : { id: key };
  const { under = "", k = K } = options;
  [$("under").value, $("k").value, $("under-hint").textContent] = [under, k, ""];
  guarded(offerClasses)();
  drawQuery(subject, path);
  waiting($("neighbors"), Number(k));
  titled(section, own ? "Nearest to your image" : "Nearest to this image", "Searching…");

  // An image of the catalogue is nearest to itself: one more is asked for, and itself left out.
  const question = questioned([subject], { under, k: Number(k) + (own ? 0 : 1) });
  const answer = heard(await ask("v1/search", { ...question, signal }));
  const found = answer.neighbors.filter((one) => one.id !== key).slice(0, k);
  if (!own && !known.has(key)) heard(await ask("v1/search", { ...questioned([subject], { k: 5 }), signal }));
  Object.assign(subject, known.get(key));

  const farthest = Math.max(...found.map((one) => one.distance));
  settle(
    $("neighbors"),
    found.map((one) => {
      const why = h("button", { type: "button", className: "link", ariaLabel: `Why is ${leaf(one.label)} near?` }, "Why?");
      why.addEventListener("click", () => guarded(compare)(subject, one));
      const distance = h("p", { className: "distance" }, bar(one.distance / farthest, "far"), one.distance.toFixed(3));
      distance.title = "Distance: 0 is the same image, 2 the least alike";
      return tile(one, signal, options, distance, h("p", { className: "row" }, clusterLink(one), why));
    }),
  );
  if (!found.length) {
    const all = h("a", { href: to(path, { k }) }, "Search all classes");
    $("neighbors").append(h("li", { className: "empty" }, h("p", {}, `There is no other image${under && ` of the class ${under}`}.`), all));
  }
  drawCaption(subject);
  const by = version === null ? "" : `, by version ${version}`;
  const title = own ? "Nearest to your image" : subject.label ? `Nearest to ${leaf(subject.label)}` : "Nearest to this image";
  titled(section, title, `${most(found)}${by}, in ${answer.took_ms.toFixed(0)} ms.`);
}

function most(found) {
  const counts = new Map();
  for (const { label } of found) counts.set(label, (counts.get(label) ?? 0) + 1);
  const [label, number] = [...counts].sort((one, other) => other[1] - one[1])[0] ?? [];
  return label ? `${number} of ${found.length} are ${leaf(label)}` : "Nothing found";
}

function drawQuery(subject, path) {
  const picture = () => {
    const { id, url, name } = subject;
    return url ? h("img", { src: url, alt: name }) : image(id, known.get(id)?.label ?? "An image of the catalogue");
  };
  $("query").querySelector("img").replaceWith(picture());
  drawCaption(subject);
  const at = trail.findIndex((one) => one.path === path);
  trail.length = at < 0 ? trail.length : at;
  trail.push({ path, address: location.hash, picture, subject });
  const links = trail.slice(-7).map((one) => {
    const link = h("a", { href: one.address }, one.picture());
    if (one.path === path) link.ariaCurrent = "page";
    return h("li", {}, link);
  });
  $("trail").replaceChildren(...(trail.length > 1 ? links : []));
}

function drawCaption(subject) {
  const one = known.get(subject.id);
  const parts = subject.file ? [named(subject.name)] : one ? [named(one.label), h("p", {}, clusterLink(one))] : [];
  $("query").querySelector("figcaption").replaceChildren(...parts);
}

async function clusters(section, { options, signal }) {
  $("find").value = options.find ?? "";
  waiting($("cards"), 12);
  titled(section, "Clusters", "");
  const all = heard(await ask("v1/clusters", { signal, onBusy: busy })).clusters;
  const draw = async () => {
    const find = $("find").value.trim().toLowerCase();
    const some = all.filter((one) => one.label.toLowerCase().includes(find) || String(one.cluster) === find);
    const shown = some.length === all.length ? "" : `${some.length} of `;
    titled(section, "Clusters", `${shown}${count(all.length, "group")} that the model forms by likeness alone, the largest first.`);
    await paged(section, async (offset) => {
      const end = offset + PAGE;
      return { items: some.slice(offset, end).map((one) => card(one, signal)), next: end < some.length ? end : null };
    });
  };
  $("find").oninput = () => {
    history.replaceState(null, "", to("clusters", { find: $("find").value.trim() }));
    here = location.hash;
    guarded(draw)();
  };
  await draw();
}

function card({ cluster, size, label, share, representatives }, signal) {
  const four = h("span", { className: "four" }, ...representatives.map((id) => image(id, "", signal)));
  const facts = h("p", { className: "row" }, h("span", {}, count(size, "image")), h("span", {}, `cluster ${cluster}`));
  const purity = h("p", { className: "distance", title: `${percent(share)} of them are ${label}` }, bar(share, "share"), percent(share));
  return h("li", { className: "tile" }, h("a", { href: to(`cluster/${cluster}`) }, four, named(label), purity, facts));
}

async function cluster(section, { key, signal }) {
  waiting($("members"), 24);
  titled(section, `Cluster ${key}`, "");
  await paged(section, async (offset) => {
    const found = heard(await ask(`v1/clusters/${encodeURIComponent(key)}?offset=${offset}&limit=${PAGE}`, { signal, onBusy: busy }));
    const shown = found.next ? `, ${found.next} of them shown` : "";
    titled(section, `Cluster ${key}`, `${count(found.size, "image")}${shown}. ${percent(found.share)} are ${found.label}.`);
    return { items: found.members.map((one) => tile(one, signal)), next: found.next };
  });
}

const VIEWS = { "": start, like: result, own: result, clusters, cluster };

async function show() {
  leaving.abort();
  leaving = new AbortController();
  scrolled.set(here, scrollY);
  const first = here === null;
  const scroll = arriving;
  [here, arriving] = [location.hash, ""];
  const place = { ...where(), signal: leaving.signal };
  const lost = place.view === "own" && !uploads.has(place.key);
  const view = (!lost && VIEWS[place.view]) || start;
  const section = $(`view-${view.name}`);
  for (const one of document.querySelectorAll("main > section")) one.hidden = one !== section;
  for (const [id, views] of [["to-search", [start, result]], ["to-clusters", [clusters, cluster]]])
    $(id).ariaCurrent = views.includes(view) ? "page" : null;
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  notice(lost ? "An image of your own is not kept: choose it again." : "");
  $("token-form").hidden = true;
  try {
    const drawn = view(section, place);
    // Whoever comes by the keyboard goes on from the heading of what took the place of what had the focus.
    if (!first && (document.activeElement === document.body || document.activeElement.closest("[hidden]")))
      section.querySelector("h1").focus({ preventScroll: true });
    if (scroll === "top") scrollTo(0, 0);
    await drawn;
    if (!scroll) scrollTo(0, scrolled.get(here) ?? 0);
  } catch (error) {
    fail(error);
  }
}

// ---- comparing, the model

async function compare(first, second) {
  const dialog = $("compare");
  const [facts, progress, pair] = [".facts", "progress", ".pair"].map((part) => dialog.querySelector(part));
  const stop = new AbortController();
  dialog.onclose = () => stop.abort();
  const figure = (one, caption) => {
    const picture = one.file ? h("img", { src: one.url, alt: one.name }) : image(one.id, one.label ?? "", stop.signal);
    return h("figure", {}, picture, h("figcaption", {}, caption));
  };
  const names = [first.label ? leaf(first.label) : "Your image", leaf(second.label)];
  const empty = names.map(() => h("span", { className: "waiting" }));
  pair.replaceChildren(figure(first, names[0]), figure(second, names[1]), ...empty);
  const comparing = `Distance ${second.distance.toFixed(3)}. Comparing region by region…`;
  facts.textContent = comparing;
  progress.hidden = false;
  dialog.showModal();
  try {
    const onBusy = (seconds) => (facts.textContent = seconds ? busyText(seconds) : comparing);
    const found = await ask("v1/explain", { ...questioned([first, second]), onBusy, signal: stop.signal });
    facts.textContent =
      `Distance ${found.distance.toFixed(3)}, where 0 is the same image. ` +
      "The brighter a region glows, the more it adds to the likeness; grey adds nothing.";
    [found.first, found.second].forEach((png, i) =>
      empty[i].replaceWith(h("img", { src: `data:image/png;base64,${png}`, alt: `What in ${names[i]} adds to the likeness` })),
    );
  } catch (error) {
    if (error.name === "AbortError") return;
    facts.textContent = error.message;
    for (const one of empty) one.remove();
  } finally {
    progress.hidden = true;
  }
}

async function describe() {
  const dialog = $("model");
  const facts = dialog.querySelector(".facts");
  facts.textContent = "Asking…";
  dialog.showModal();
  try {
    const [model, ready] = await Promise.all([ask("v1/model"), ask("readyz")]);
    heard(model);
    const since = new Date(model.since).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
    const rows = {
      Name: model.name,
      Version: [model.version ?? "from a folder", ...model.aliases].join(", "),
      "Answers since": since,
      Checked: model.checked ? "It answers as when it was registered" : "No earlier answers to hold it against",
      Images: `${model.images.toLocaleString()}, version ${model.catalogue_version} of the catalogue`,
      Embedding: `${model.dimensions} numbers an image`,
      "Why this one": model.gate_reason,
      "A newer one is held back": ready.refused && `Version ${ready.refused.version}: ${ready.refused.reason}`,
      Registry: ready.registry?.reachable === false && "Out of reach; the model goes on answering",
    };
    const given = Object.entries(rows).filter(([, value]) => value);
    $("about").replaceChildren(...given.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
    $("metrics").replaceChildren(...Object.entries(model.metrics).filter(([, one]) => one.value !== null).map(metric));
    facts.textContent = $("metrics").children.length ? "" : "It was never evaluated.";
  } catch (error) {
    facts.textContent = error.message;
  }
}

const SHORT = { "fine.": "", recall_at_: "recall@", map_at_r: "mAP@R", ndcg_at_: "nDCG@" };
const short = (name) => name.replace(/fine\.|recall_at_|map_at_r|ndcg_at_/g, (part) => SHORT[part]);

function metric([name, { value, low, high, count: number }]) {
  const shown = (figure) => (name === SCORE ? figure.toFixed(3) : percent(figure, 1));
  const interval = low === null ? "" : `${shown(low)} to ${shown(high)}, `;
  const facts = h("p", { className: "facts" }, `${interval}measured on ${number.toLocaleString()}; ${short(name)}`);
  const track = bar(value, "metric");
  track.style.setProperty("--low", low ?? value);
  track.style.setProperty("--high", high ?? value);
  return h("li", {}, h("p", {}, h("strong", {}, shown(value)), ` ${FIGURES[name] ?? name}`), ...(name === SCORE ? [] : [track]), facts);
}

// ---- the filter

async function offerClasses() {
  classes ??= ask("v1/classes").then((answer) => answer.classes);
  try {
    const found = await classes;
    if ($("classes").childElementCount === found.length) return;
    $("classes").replaceChildren(...found.map((one) => h("option", { value: one.label }, count(one.count, "image"))));
  } catch (error) {
    classes = null;
    throw error;
  }
}

// A part of a class's name will do where it names one class, or one folder and what is in it.
async function filter() {
  await offerClasses();
  const typed = $("under").value.trim().replace(/^\/|\/$/g, "").toLowerCase();
  const labels = (await classes).map((one) => one.label);
  const ways = [(one) => one === typed, (one) => leaf(one) === typed, (one) => one.includes(typed)];
  const holding = ways.map((way) => labels.filter((one) => way(one.toLowerCase()))).find((some) => some.length) ?? [];
  const one = holding.every((each) => `${each}/`.startsWith(`${holding[0]}/`)) ? holding[0] : null;
  if (!typed || one) go(to(where().path, { under: typed && one, k: $("k").value }), "stay");
  else $("under-hint").textContent = `${holding.length || "No"} classes have this in their name.`;
}

// ---- events

function take(files) {
  const file = [...files].find((one) => !one.type || one.type.startsWith("image/"));
  if (!file) return notice("That is no image: drop, paste or choose an image file.");
  const number = String(uploads.size + 1);
  uploads.set(number, { file, url: URL.createObjectURL(file), name: file.name || "Your image" });
  go(to(`own/${number}`, { k: where().options.k }));
}

for (const button of document.querySelectorAll(".choose")) button.addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => {
  take($("file").files);
  $("file").value = "";
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files);
  });
}
document.addEventListener("paste", (event) => event.clipboardData.files.length && take(event.clipboardData.files));
document.addEventListener("click", (event) => {
  if (event.target.closest('a[href^="#"]')) arriving = "top";
});

for (const form of document.forms) form.addEventListener("submit", (event) => event.preventDefault());
$("under").addEventListener("change", guarded(filter));
$("under").addEventListener("input", ({ inputType }) => {
  if (!$("under").value || !inputType || inputType === "insertReplacementText") guarded(filter)();
});
$("k").addEventListener("change", guarded(filter));
$("token-form").addEventListener("submit", () => {
  setToken($("token").value.trim());
  $("token").value = "";
  show();
});
$("message").querySelector("button").addEventListener("click", show);
$("to-model").addEventListener("click", describe);
$("skip").addEventListener("click", () => document.querySelector("main > section:not([hidden]) h1").focus());
for (const button of document.querySelectorAll("dialog .close")) button.addEventListener("click", () => button.closest("dialog").close());

history.scrollRestoration = "manual";
addEventListener("hashchange", show);
show();
