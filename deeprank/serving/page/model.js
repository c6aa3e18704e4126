// The dialog that describes the release in service.
import { fetchJson } from "./api.js";
import { $, barElement, createElement, percent } from "./elements.js";
import { recordResponse } from "./session.js";

// Its range is -1 to 1; the other metrics are fractions.
const SCORE = "score_at_top_30";
const METRIC_TEXTS = {
  "fine.recall_at_1": "The nearest image has the same class",
  "fine.recall_at_5": "At least one of the nearest 5 has the same class",
  "fine.recall_at_10": "At least one of the nearest 10 has the same class",
  "fine.map_at_r": "Images of the same class come before all others",
  "coarse.recall_at_1": "The nearest image has the same coarse class",
  "coarse.recall_at_5": "At least one of the nearest 5 has the same coarse class",
  "coarse.recall_at_10": "At least one of the nearest 10 has the same coarse class",
  "coarse.map_at_r": "Images of the same coarse class come before all others",
  ndcg_at_10: "Order of the nearest 10: same class first, then same coarse class",
  triplet_accuracy: "Of two images, the one of the same class is nearer",
  triplet_accuracy_same_parent: "Of two images with the same parent class, the one of the same class is nearer",
  score_at_top_30: "Pairs in the right order minus pairs in the wrong order among the nearest 30, from -1 to 1",
};
const ABBREVIATIONS = { "fine.": "", recall_at_: "recall@", map_at_r: "mAP@R", ndcg_at_: "nDCG@" };

export async function showModel() {
  const dialog = $("model");
  const facts = dialog.querySelector(".facts");
  facts.textContent = "Loading…";
  dialog.showModal();
  try {
    const [model, readiness] = await Promise.all([fetchJson("v1/model"), fetchJson("readyz")]);
    recordResponse(model);
    const rows = Object.entries(modelFacts(model, readiness)).filter(([, value]) => value);
    $("model-facts").replaceChildren(
      ...rows.flatMap(([name, value]) => [createElement("dt", {}, name), createElement("dd", {}, value)]),
    );
    const measured = Object.entries(model.metrics).filter(([, { value }]) => value !== null);
    $("metrics").replaceChildren(...measured.map(([name, estimate]) => metricElement(name, estimate)));
    facts.textContent = measured.length ? "" : "This release has no evaluation.";
  } catch (error) {
    facts.textContent = error.message;
  }
}

function modelFacts(model, { refused, registry }) {
  return {
    Name: model.name,
    Version: [model.version ?? "from a folder", ...model.aliases].join(", "),
    "In service since": new Date(model.since).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" }),
    Canary: model.canary_passed ? "Same neighbors as at registration" : "The release has no canary",
    Images: `${model.num_images.toLocaleString()}, catalogue version ${model.catalogue_version}`,
    Embedding: `${model.embedding_dim} dimensions`,
    "Promotion gate": model.gate_reason,
    "Refused release": refused && `Version ${refused.version}: ${refused.reason}`,
    Registry: registry?.reachable === false && "Unreachable; still serving the loaded release",
  };
}

const shortName = (name) => name.replace(/fine\.|recall_at_|map_at_r|ndcg_at_/g, (match) => ABBREVIATIONS[match]);

function metricElement(name, { value, low, high, count }) {
  const format = (number) => (name === SCORE ? number.toFixed(3) : percent(number, 1));
  const interval = low === null ? "" : `${format(low)} to ${format(high)}, `;
  const facts = createElement("p", { className: "facts" }, `${interval}measured on ${count.toLocaleString()}; ${shortName(name)}`);
  const bar = barElement(value, "metric");
  bar.style.setProperty("--low", low ?? value);
  bar.style.setProperty("--high", high ?? value);
  const text = createElement("p", {}, createElement("strong", {}, format(value)), ` ${METRIC_TEXTS[name] ?? name}`);
  return createElement("li", {}, text, ...(name === SCORE ? [] : [bar]), facts);
}
