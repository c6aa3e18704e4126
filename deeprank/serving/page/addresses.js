// The address after # names the view and its options, so that Back, reloading and sharing work.
export const DEFAULT_K = 12;

const scrollPositions = new Map();
let currentAddress = null;
// How the next view scrolls: "top", "stay", or empty for the position at which the address was left.
let nextScroll = "";

export function addressOf(path, { label_prefix: labelPrefix = "", k = DEFAULT_K, query = "" } = {}) {
  const options = new URLSearchParams();
  if (labelPrefix) options.set("label_prefix", labelPrefix);
  if (Number(k) !== DEFAULT_K) options.set("k", k);
  if (query) options.set("query", query);
  return `#${path}${options.size ? "?" : ""}${options.toString().replaceAll("%2F", "/")}`;
}

// Returns the view, its key, the path of both, and the options in the browser's address.
export function currentRoute() {
  const [path, query] = location.hash.slice(1).split("?");
  const [view, key] = path.split("/");
  return { view, key, path, options: Object.fromEntries(new URLSearchParams(query)) };
}

export function navigate(address, scroll = "top") {
  nextScroll = scroll;
  location.hash = address;
}

export const scrollNextViewToTop = () => (nextScroll = "top");

// Changes the address without a new entry in the browser's history and without drawing the view again.
export function replaceAddress(address) {
  history.replaceState(null, "", address);
  currentAddress = location.hash;
}

// Keeps the scroll position of the address that is left, and returns whether the new one is the first and how its view scrolls.
export function enterAddress() {
  scrollPositions.set(currentAddress, scrollY);
  const entry = { isFirst: currentAddress === null, scroll: nextScroll };
  [currentAddress, nextScroll] = [location.hash, ""];
  return entry;
}

export const restoreScroll = () => scrollTo(0, scrollPositions.get(currentAddress) ?? 0);
