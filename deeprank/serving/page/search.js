// The start view, and the search with an image of the client or of the catalogue.
import { addressOf, currentRoute, DEFAULT_K, navigate } from "./addresses.js";
import { catalogueImage, fetchJson, imageRequest } from "./api.js";
import { compareImages } from "./compare.js";
import {
  $,
  barElement,
  clusterLink,
  countText,
  createElement,
  fillList,
  imageTile,
  labelElement,
  leafName,
  showPlaceholders,
} from "./elements.js";
import { setTitle, showBusy, showMessage, withErrors } from "./messages.js";
import { knownImages, loadClasses, recordResponse, releaseVersion, searchTrail, uploads } from "./session.js";
import { shrinkToLimits } from "./shrink.js";

const NUM_SAMPLES = 24;
const MAX_TRAIL_LINKS = 7;

export async function showStart(section, { signal }) {
  searchTrail.length = 0;
  setTitle(section, "Find similar images");
  const list = $("samples");
  if (list.querySelector("a")) return;
  showPlaceholders(list, NUM_SAMPLES);
  const { samples } = recordResponse(await fetchJson(`v1/samples?count=${NUM_SAMPLES}`, { signal, onBusy: showBusy }));
  // The samples stay in the page when the view is left, so their images are loaded without the signal.
  fillList(list, samples.map((image) => imageTile(image)));
}

export async function showSearch(section, { view, key, path, options, signal }) {
  const isUpload = view === "upload";
  const query = isUpload ? uploads.get(key) : { id: key };
  const { label_prefix: labelPrefix = "", k = DEFAULT_K } = options;
  [$("label-prefix").value, $("k").value, $("label-prefix-hint").textContent] = [labelPrefix, k, ""];
  withErrors(offerClasses)();
  drawQuery(query, path);
  showPlaceholders($("neighbors"), Number(k));
  setTitle(section, isUpload ? "Nearest to your image" : "Nearest to this image", "Searching…");

  if (isUpload && !query.isWithinLimits) {
    const file = await shrinkToLimits(query, { signal, onBusy: showBusy });
    Object.assign(query, { file, isWithinLimits: true });
  }
  // An image of the catalogue is its own nearest neighbor: request one more and leave it out.
  const search = (fields) => fetchJson("v1/search", { ...imageRequest([query], fields), signal, onBusy: showBusy });
  const response = recordResponse(await search({ label_prefix: labelPrefix, k: Number(k) + (isUpload ? 0 : 1) }));
  const neighbors = response.neighbors.filter((image) => image.id !== key).slice(0, k);
  // With a filter the query itself may be missing in the response: its label and cluster come from a search without one.
  if (!isUpload && !knownImages.has(key)) recordResponse(await search({ k: 5 }));
  Object.assign(query, knownImages.get(key));

  const maxDistance = Math.max(...neighbors.map((image) => image.distance));
  fillList($("neighbors"), neighbors.map((image) => neighborTile(query, image, maxDistance, options, signal)));
  if (!neighbors.length) {
    const link = createElement("a", { href: addressOf(path, { k }) }, "Search all classes");
    const text = `There is no other image${labelPrefix && ` of the class ${labelPrefix}`}.`;
    $("neighbors").append(createElement("li", { className: "empty" }, createElement("p", {}, text), link));
  }
  drawCaption(query);
  const version = releaseVersion() === null ? "" : `Version ${releaseVersion()}, `;
  const title = isUpload ? "Nearest to your image" : query.label ? `Nearest to ${leafName(query.label)}` : "Nearest to this image";
  const novelty = response.novel ? "This image is unlike anything that the model was trained on. " : "";
  setTitle(section, title, `${novelty}${majorityText(neighbors)}. ${version}${response.duration_ms.toFixed(0)} ms.`);
}

function neighborTile(query, image, maxDistance, options, signal) {
  const properties = { type: "button", className: "link", ariaLabel: `Why is ${leafName(image.label)} similar?` };
  const compareButton = createElement("button", properties, "Why?");
  compareButton.addEventListener("click", () => withErrors(compareImages)(query, image));
  const bar = barElement(image.distance / maxDistance);
  const distance = createElement("p", { className: "distance" }, bar, image.distance.toFixed(3));
  distance.title = "Distance from 0 (same image) to 2 (least similar)";
  return imageTile(image, signal, options, distance, createElement("p", { className: "row" }, clusterLink(image), compareButton));
}

function majorityText(neighbors) {
  const counts = new Map();
  for (const { label } of neighbors) counts.set(label, (counts.get(label) ?? 0) + 1);
  const [label, count] = [...counts].sort((first, second) => second[1] - first[1])[0] ?? [];
  return label ? `${count} of ${neighbors.length} are ${leafName(label)}` : "No images";
}

function drawQuery(query, path) {
  const createImage = () => {
    const { id, url, name } = query;
    if (url) return createElement("img", { src: url, alt: name });
    return catalogueImage(id, knownImages.get(id)?.label ?? "An image of the catalogue");
  };
  $("query").querySelector("img").replaceWith(createImage());
  drawCaption(query);
  const position = searchTrail.findIndex((search) => search.path === path);
  searchTrail.length = position < 0 ? searchTrail.length : position;
  searchTrail.push({ path, address: location.hash, createImage });
  const links = searchTrail.slice(-MAX_TRAIL_LINKS).map((search) => {
    const link = createElement("a", { href: search.address }, search.createImage());
    if (search.path === path) link.ariaCurrent = "page";
    return createElement("li", {}, link);
  });
  $("search-trail").replaceChildren(...(searchTrail.length > 1 ? links : []));
}

function drawCaption(query) {
  const image = knownImages.get(query.id);
  const catalogueCaption = image ? [labelElement(image.label), createElement("p", {}, clusterLink(image))] : [];
  $("query").querySelector("figcaption").replaceChildren(...(query.file ? [labelElement(query.name)] : catalogueCaption));
}

async function offerClasses() {
  const classes = await loadClasses();
  if ($("class-options").childElementCount === classes.length) return;
  const options = classes.map(({ label, num_images: count }) => createElement("option", { value: label }, countText(count, "image")));
  $("class-options").replaceChildren(...options);
}

// Part of a class's name is enough if it matches one class only, or one folder and the classes in it.
export async function applyFilter() {
  await offerClasses();
  const text = $("label-prefix").value.trim().replace(/^\/|\/$/g, "").toLowerCase();
  const labels = (await loadClasses()).map(({ label }) => label);
  const criteria = [(label) => label === text, (label) => leafName(label) === text, (label) => label.includes(text)];
  const matchesByCriterion = criteria.map((isMatch) => labels.filter((label) => isMatch(label.toLowerCase())));
  const matches = matchesByCriterion.find(({ length }) => length) ?? [];
  const match = matches.every((label) => `${label}/`.startsWith(`${matches[0]}/`)) ? matches[0] : null;
  if (!text || match) navigate(addressOf(currentRoute().path, { label_prefix: text && match, k: $("k").value }), "stay");
  else $("label-prefix-hint").textContent = `${matches.length || "No"} classes match this text.`;
}

// Searches with the first image among files that were chosen, dropped or pasted.
export function searchWithFile(files) {
  const file = [...files].find(({ type }) => !type || type.startsWith("image/"));
  if (!file) return showMessage("This file is not an image. Choose, drop or paste an image file.");
  const number = String(uploads.size + 1);
  uploads.set(number, { file, url: URL.createObjectURL(file), name: file.name || "Your image" });
  navigate(addressOf(`upload/${number}`, { k: currentRoute().options.k }));
}
