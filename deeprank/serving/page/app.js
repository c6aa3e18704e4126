// The entry point of the page: draws the view of the address, and handles events.
import { currentRoute, enterAddress, restoreScroll, scrollNextViewToTop } from "./addresses.js";
import { setToken } from "./api.js";
import { showCluster, showClusters } from "./clusters.js";
import { $ } from "./elements.js";
import { showError, showMessage, withErrors } from "./messages.js";
import { showModel } from "./model.js";
import { applyFilter, searchWithFile, showSearch, showStart } from "./search.js";
import { uploads } from "./session.js";

const START = { section: "view-start", link: "nav-search", draw: showStart };
const SEARCH = { section: "view-search", link: "nav-search", draw: showSearch };
const CLUSTERS = { section: "view-clusters", link: "nav-clusters", draw: showClusters };
const CLUSTER = { section: "view-cluster", link: "nav-clusters", draw: showCluster };
const VIEWS = { "": START, image: SEARCH, upload: SEARCH, clusters: CLUSTERS, cluster: CLUSTER };

let viewController = new AbortController();

async function showView() {
  viewController.abort();
  viewController = new AbortController();
  const { isFirst, scroll } = enterAddress();
  const route = { ...currentRoute(), signal: viewController.signal };
  const isLostUpload = route.view === "upload" && !uploads.has(route.key);
  const view = (!isLostUpload && VIEWS[route.view]) || START;
  const section = $(view.section);
  for (const other of document.querySelectorAll("main > section")) other.hidden = other !== section;
  for (const link of ["nav-search", "nav-clusters"]) $(link).ariaCurrent = link === view.link ? "page" : null;
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  showMessage(isLostUpload ? "Your image is no longer available. Choose it again." : "");
  $("token-form").hidden = true;
  try {
    const drawing = view.draw(section, route);
    // If the focused element is hidden now, keyboard users continue from the heading of the new view.
    if (!isFirst && (document.activeElement === document.body || document.activeElement.closest("[hidden]")))
      section.querySelector("h1").focus({ preventScroll: true });
    if (scroll === "top") scrollTo(0, 0);
    await drawing;
    if (!scroll) restoreScroll();
  } catch (error) {
    showError(error);
  }
}

for (const button of document.querySelectorAll(".choose-image")) button.addEventListener("click", () => $("file-input").click());
$("file-input").addEventListener("change", () => {
  searchWithFile($("file-input").files);
  $("file-input").value = "";
});
for (const type of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(type, (event) => {
    event.preventDefault();
    document.body.classList.toggle("drag-over", type === "dragover");
    if (type === "drop") searchWithFile(event.dataTransfer.files);
  });
}
document.addEventListener("paste", (event) => event.clipboardData.files.length && searchWithFile(event.clipboardData.files));
document.addEventListener("click", (event) => {
  if (event.target.closest('a[href^="#"]')) scrollNextViewToTop();
});

for (const form of document.forms) form.addEventListener("submit", (event) => event.preventDefault());
$("label-prefix").addEventListener("change", withErrors(applyFilter));
$("label-prefix").addEventListener("input", ({ inputType }) => {
  // The list of classes was used, or the field was cleared.
  if (!$("label-prefix").value || !inputType || inputType === "insertReplacementText") withErrors(applyFilter)();
});
$("k").addEventListener("change", withErrors(applyFilter));
$("token-form").addEventListener("submit", () => {
  setToken($("token").value.trim());
  $("token").value = "";
  showView();
});
$("message").querySelector("button").addEventListener("click", showView);
$("open-model").addEventListener("click", showModel);
$("skip").addEventListener("click", () => document.querySelector("main > section:not([hidden]) h1").focus());
for (const button of document.querySelectorAll("dialog .close")) button.addEventListener("click", () => button.closest("dialog").close());

history.scrollRestoration = "manual";
addEventListener("hashchange", showView);
showView();
