// What the page asks of the service: with a token if there is one, again where the service is busy, and problems in words.
const TOKEN = "deeprank-token";
const ATTEMPTS = 5;
const BLANK = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw==";

export class Problem extends Error {
  constructor(text, status) {
    super(text);
    this.status = status;
  }
}

export const setToken = (token) => sessionStorage.setItem(TOKEN, token);
export const hasToken = () => sessionStorage.getItem(TOKEN) !== null;

const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));

async function fetched(path, { onBusy, ...options }) {
  for (let left = ATTEMPTS - 1; ; left--) {
    const token = sessionStorage.getItem(TOKEN);
    let answer;
    try {
      answer = await fetch(path, { ...options, headers: token ? { Authorization: `Bearer ${token}` } : {} });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Problem("The service cannot be reached, or it cut the upload short.", 0);
    }
    if (answer.ok) {
      if (left < ATTEMPTS - 1) onBusy?.(0);
      return answer;
    }
    const seconds = Number(answer.headers.get("Retry-After"));
    if (!seconds || !left) throw new Problem(await detail(answer), answer.status);
    onBusy?.(seconds);
    await pause(seconds);
    options.signal?.throwIfAborted();
  }
}

async function detail(answer) {
  if (!answer.headers.get("Content-Type")?.includes("json")) return `The service answered ${answer.status}.`;
  const { detail, title } = await answer.json();
  return detail || title;
}

// Options are fetch's; onBusy hears in how many seconds a busy service is asked again, and 0 when it has answered.
export const ask = async (path, options = {}) => (await fetched(path, options)).json();

const near = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) if (isIntersecting) target.load();
  },
  { rootMargin: "400px" },
);

// An image of the catalogue, fetched when it comes near the screen: an <img> alone could neither show the token nor wait its turn.
export function image(id, alt, signal) {
  const image = Object.assign(new Image(), { alt, src: BLANK });
  image.load = async () => {
    near.unobserve(image);
    try {
      const blob = await (await fetched(`v1/images/${id}`, { signal })).blob();
      image.onload = () => URL.revokeObjectURL(image.src);
      image.src = URL.createObjectURL(blob);
    } catch (error) {
      // Without an address its alternative text is shown.
      if (error.name !== "AbortError") image.removeAttribute("src");
    }
  };
  near.observe(image);
  return image;
}
