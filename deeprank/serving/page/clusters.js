// The list of clusters, and one cluster with its images.
import { addressOf, replaceAddress } from "./addresses.js";
import { catalogueImage, fetchJson } from "./api.js";
import { $, barElement, countText, createElement, fillList, imageTile, labelElement, percent, showPlaceholders } from "./elements.js";
import { setTitle, showBusy, withErrors } from "./messages.js";
import { recordResponse } from "./session.js";

const PAGE_SIZE = 60;

// Fills a section's list page by page; loadPage(offset) returns the items and the offset of the next page, null on the last one.
async function showPages(section, loadPage) {
  const [list, moreButton] = [section.querySelector(".grid"), section.querySelector(".show-more")];
  const addPage = async (offset) => {
    const { items, nextOffset } = await loadPage(offset);
    offset ? list.append(...items) : fillList(list, items);
    moreButton.hidden = nextOffset === null;
    moreButton.onclick = withErrors(async () => (await addPage(nextOffset))[0].querySelector("a").focus());
    return items;
  };
  await addPage(0);
}

export async function showClusters(section, { options, signal }) {
  $("cluster-query").value = options.query ?? "";
  showPlaceholders($("cluster-cards"), 12);
  setTitle(section, "Clusters", "");
  const { clusters } = recordResponse(await fetchJson("v1/clusters", { signal, onBusy: showBusy }));
  const draw = async () => {
    const query = $("cluster-query").value.trim().toLowerCase();
    const matches = clusters.filter(
      ({ majority_label: label, cluster }) => label.toLowerCase().includes(query) || String(cluster) === query,
    );
    const shown = matches.length === clusters.length ? "" : `${matches.length} of `;
    const facts = `${shown}${countText(clusters.length, "cluster")} of similar images, found without labels; largest first.`;
    setTitle(section, "Clusters", facts);
    await showPages(section, async (offset) => {
      const end = offset + PAGE_SIZE;
      const items = matches.slice(offset, end).map((cluster) => clusterCard(cluster, signal));
      return { items, nextOffset: end < matches.length ? end : null };
    });
  };
  $("cluster-query").oninput = () => {
    replaceAddress(addressOf("clusters", { query: $("cluster-query").value.trim() }));
    withErrors(draw)();
  };
  await draw();
}

function clusterCard({ cluster, size, majority_label: label, purity, representatives }, signal) {
  const images = createElement("span", { className: "representatives" }, ...representatives.map((id) => catalogueImage(id, "", signal)));
  const purityTitle = `${percent(purity)} of the images are ${label}`;
  const purityElement = createElement("p", { className: "distance", title: purityTitle }, barElement(purity), percent(purity));
  const row = [createElement("span", {}, countText(size, "image")), createElement("span", {}, `cluster ${cluster}`)];
  const facts = createElement("p", { className: "row" }, ...row);
  const link = createElement("a", { href: addressOf(`cluster/${cluster}`) }, images, labelElement(label), purityElement, facts);
  return createElement("li", { className: "tile" }, link);
}

export async function showCluster(section, { key, signal }) {
  showPlaceholders($("members"), 24);
  setTitle(section, `Cluster ${key}`, "");
  await showPages(section, async (offset) => {
    const path = `v1/clusters/${encodeURIComponent(key)}?offset=${offset}&limit=${PAGE_SIZE}`;
    const response = recordResponse(await fetchJson(path, { signal, onBusy: showBusy }));
    const { size, majority_label: label, purity, members, next_offset: nextOffset } = response;
    const shown = nextOffset ? `, ${nextOffset} of them shown` : "";
    setTitle(section, `Cluster ${key}`, `${countText(size, "image")}${shown}. ${percent(purity)} are ${label}.`);
    return { items: members.map((image) => imageTile(image, signal)), nextOffset };
  });
}
