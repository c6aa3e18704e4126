// The message at the top of the page, the titles of views, and errors.
import { hasToken } from "./api.js";
import { $, fillList } from "./elements.js";

const TOO_MANY_REQUESTS = 429;
const UNAUTHORIZED = 401;

export function showMessage(text, canRetry) {
  $("message").hidden = !text;
  $("message").querySelector("p").textContent = text;
  $("message").querySelector("button").hidden = !canRetry;
}

export const busyText = (seconds) => `The service is busy. Trying again in ${seconds} s.`;
export const showBusy = (seconds) => showMessage(seconds ? busyText(seconds) : "");

export function showError(error) {
  if (error.name === "AbortError") return;
  for (const list of document.querySelectorAll("[aria-busy=true]")) fillList(list, []);
  // A progress text such as “Searching…” does not stay under an error.
  for (const facts of document.querySelectorAll(".facts")) if (facts.textContent.endsWith("…")) facts.textContent = "";
  if (error.status === UNAUTHORIZED) {
    showMessage(hasToken() ? "The token is not valid." : "");
    $("token-form").hidden = false;
    $("token").focus();
  } else {
    showMessage(error.message, !error.status || error.status >= TOO_MANY_REQUESTS);
  }
}

export const withErrors =
  (action) =>
  (...args) =>
    action(...args).catch(showError);

export function setTitle(section, title, facts) {
  section.querySelector("h1").textContent = title;
  if (facts !== undefined) section.querySelector(".facts").textContent = facts;
  $("status").textContent = facts || title;
  document.title = `${title} · deeprank`;
}
