// Elements and texts that several views share.
import { addressOf } from "./addresses.js";
import { catalogueImage } from "./api.js";

export const $ = (id) => document.getElementById(id);

export function createElement(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

export const leafName = (label) => label.split("/").at(-1);
export const percent = (fraction, digits = 0) => `${(100 * fraction).toFixed(digits)} %`;
export const countText = (number, singular, plural = `${singular}s`) => `${number.toLocaleString()} ${number === 1 ? singular : plural}`;

export function showPlaceholders(list, count) {
  list.setAttribute("aria-busy", "true");
  list.replaceChildren(...Array.from({ length: count }, () => createElement("li", { className: "placeholder" })));
}

export function fillList(list, items) {
  list.removeAttribute("aria-busy");
  list.replaceChildren(...items);
}

export function labelElement(label) {
  const parents = label.split("/").slice(0, -1).join(" › ");
  const [folder, name] = [createElement("span", {}, parents), createElement("strong", {}, leafName(label))];
  return createElement("p", { className: "label", title: label }, folder, name);
}

export function barElement(fraction, className = "") {
  const element = createElement("span", { className: `bar ${className}` });
  element.style.setProperty("--fraction", fraction);
  return element;
}

export function clusterLink({ cluster }) {
  return cluster < 0
    ? createElement("span", {}, "no cluster")
    : createElement("a", { href: addressOf(`cluster/${cluster}`) }, `cluster ${cluster}`);
}

export function imageTile(image, signal, options, ...children) {
  const properties = { href: addressOf(`image/${image.id}`, options), title: "Search with this image" };
  const link = createElement("a", properties, catalogueImage(image.id, image.label, signal));
  return createElement("li", { className: "tile" }, link, labelElement(image.label), ...children);
}
