// What the page keeps in memory until it is closed.
import { fetchJson } from "./api.js";
import { $ } from "./elements.js";

// The client's images by number; each has its file, the URL of its content, and its name.
export const uploads = new Map();
// Images of the catalogue by id, as the API returned them.
export const knownImages = new Map();
// The searches that led to the current one, oldest first.
export const searchTrail = [];

let version = null;
let classes = null;

export const releaseVersion = () => version;

// Records the release and the images of a response, and returns the response.
export function recordResponse(response) {
  if (response.version !== version) classes = null;
  version = response.version;
  $("open-model").textContent = version === null ? "Model" : `Model ${version}`;
  for (const image of response.neighbors ?? response.members ?? response.samples ?? []) knownImages.set(image.id, image);
  return response;
}

export async function loadClasses() {
  classes ??= fetchJson("v1/classes").then((response) => response.classes);
  try {
    return await classes;
  } catch (error) {
    classes = null;
    throw error;
  }
}
