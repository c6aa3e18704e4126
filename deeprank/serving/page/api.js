// Requests to the API: with the token if there is one, repeated while the service is busy, and with readable errors.
const TOKEN_KEY = "deeprank-token";
const MAX_ATTEMPTS = 5;
const BLANK_IMAGE = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw==";

export class ApiError extends Error {
  constructor(text, status) {
    super(text);
    this.status = status;
  }
}

export const setToken = (token) => sessionStorage.setItem(TOKEN_KEY, token);
export const hasToken = () => sessionStorage.getItem(TOKEN_KEY) !== null;

const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

async function fetchWithRetry(path, { onBusy, ...options }) {
  for (let attempt = 1; ; attempt++) {
    const token = sessionStorage.getItem(TOKEN_KEY);
    let response;
    try {
      response = await fetch(path, { ...options, headers: token ? { Authorization: `Bearer ${token}` } : {} });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("The service is not reachable, or it closed the connection during the upload.", 0);
    }
    if (response.ok) {
      if (attempt > 1) onBusy?.(0);
      return response;
    }
    const seconds = Number(response.headers.get("Retry-After"));
    if (!seconds || attempt === MAX_ATTEMPTS) throw new ApiError(await errorDetail(response), response.status);
    onBusy?.(seconds);
    await sleep(seconds);
    options.signal?.throwIfAborted();
  }
}

async function errorDetail(response) {
  if (!response.headers.get("Content-Type")?.includes("json")) return `The service responded with status ${response.status}.`;
  const { detail, title } = await response.json();
  return detail || title;
}

// Takes the options of fetch and `onBusy`, which gets the seconds until the next attempt, and 0 after a success.
export const fetchJson = async (path, options = {}) => (await fetchWithRetry(path, options)).json();

// Returns the fetch options of a request with images; each has a `file`, or the `id` of an image of the catalogue.
export function imageRequest(images, fields = {}) {
  const body = new FormData();
  for (const image of images) image.file ? body.append("image", image.file) : body.append("id", image.id);
  for (const [name, value] of Object.entries(fields)) if (value) body.append(name, value);
  return { method: "POST", body };
}

const visibilityObserver = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) if (isIntersecting) target.load();
  },
  { rootMargin: "400px" },
);

// Returns an <img> of the catalogue that is fetched shortly before it becomes visible; a plain src could not send the token or retry.
export function catalogueImage(id, alt, signal) {
  const image = Object.assign(new Image(), { alt, src: BLANK_IMAGE });
  image.load = async () => {
    visibilityObserver.unobserve(image);
    try {
      const blob = await (await fetchWithRetry(`v1/images/${id}`, { signal })).blob();
      image.onload = () => URL.revokeObjectURL(image.src);
      image.src = URL.createObjectURL(blob);
    } catch (error) {
      // Without a src the browser shows the alternative text.
      if (error.name !== "AbortError") image.removeAttribute("src");
    }
  };
  visibilityObserver.observe(image);
  return image;
}
