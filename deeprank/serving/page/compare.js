// The dialog that shows which regions of two images add to their similarity.
import { catalogueImage, fetchJson, imageRequest } from "./api.js";
import { $, createElement, leafName } from "./elements.js";
import { busyText } from "./messages.js";

// Compares the query, an image of the client or of the catalogue, with one of its neighbors.
export async function compareImages(query, neighbor) {
  const dialog = $("compare");
  const [facts, progress, pair] = [".facts", "progress", ".pair"].map((selector) => dialog.querySelector(selector));
  const controller = new AbortController();
  dialog.onclose = () => controller.abort();
  const figure = (image, caption) => {
    const img = image.file
      ? createElement("img", { src: image.url, alt: image.name })
      : catalogueImage(image.id, image.label ?? "", controller.signal);
    return createElement("figure", {}, img, createElement("figcaption", {}, caption));
  };
  const names = [query.label ? leafName(query.label) : "Your image", leafName(neighbor.label)];
  const placeholders = names.map(() => createElement("span", { className: "placeholder" }));
  pair.replaceChildren(figure(query, names[0]), figure(neighbor, names[1]), ...placeholders);
  const progressText = `Distance ${neighbor.distance.toFixed(3)}. Comparing regions…`;
  facts.textContent = progressText;
  progress.hidden = false;
  dialog.showModal();
  try {
    const onBusy = (seconds) => (facts.textContent = seconds ? busyText(seconds) : progressText);
    const response = await fetchJson("v1/explain", { ...imageRequest([query, neighbor]), onBusy, signal: controller.signal });
    facts.textContent =
      `Distance ${response.distance.toFixed(3)} (0: same image). ` +
      "Bright regions add the most to the similarity; gray regions add nothing.";
    [response.first_overlay, response.second_overlay].forEach((png, i) => {
      const properties = { src: `data:image/png;base64,${png}`, alt: `Regions of ${names[i]} that add to the similarity` };
      placeholders[i].replaceWith(createElement("img", properties));
    });
  } catch (error) {
    if (error.name === "AbortError") return;
    facts.textContent = error.message;
    for (const placeholder of placeholders) placeholder.remove();
  } finally {
    progress.hidden = true;
  }
}
